import subprocess
import sys

import pytest

from bocb_mm.errors import UnknownNameError, UserError, nearest, one_line_errors, unknown_name


@pytest.mark.parametrize(
    'given, best', [('adanw', 'AdamW'), ('lars', 'LARS'), ('sdg', 'SGD'), ('LARZ', 'LARS')]
)
def test_nearest_ignores_case_and_puts_the_best_first(given, best):
    assert nearest(given, ['SGD', 'AdamW', 'LARS', 'LAMB'])[0] == best


def test_nothing_is_suggested_for_a_name_like_no_other():
    assert 'did you mean' not in str(unknown_name('optimizer', 'qqqqqq', ['SGD']))


def test_the_error_can_be_raised_again_from_its_message_as_mmengine_does():
    error = unknown_name('optimizer', 'adanw', ['AdamW'])
    again = type(error)(f'in class `X`: {error}')
    assert isinstance(again, UnknownNameError) and isinstance(again, KeyError)
    assert 'AdamW' in str(again) and not str(again).startswith("'")


def test_a_tool_shows_one_line_and_status_2(capsys):
    @one_line_errors
    def main():
        raise UserError('first\nsecond   line')

    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err == 'error: first second line\n'


def test_other_errors_keep_their_traceback():
    @one_line_errors
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main()


def test_ctrl_c_is_one_line_and_status_130(capsys):
    @one_line_errors
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130
    assert capsys.readouterr().err == 'interrupted\n'


def test_a_reader_that_has_left_ends_a_command_in_silence():
    command = [sys.executable, '-m', 'bocb_mm.cli', 'configs']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # as `| head` does
        assert (process.stderr.read(), process.wait()) == (b'', 141)


def test_another_broken_pipe_keeps_its_traceback():
    @one_line_errors
    def main():
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        main()
