"""The work-around for mmengine's layout of configs changes its cost, not its result."""


def test_a_config_is_laid_out_once_and_as_before(monkeypatch):
    from mmengine.config import Config, config

    from bocb_mm.compat import lay_out_config_once

    plain = config.FormatCode
    calls = []

    def counted(text, **style):
        calls.append(text)
        return plain(text, **style)

    first, second = Config({'a': {'b': [1, 2]}, 'c': 'd'}), Config({'a': 2})
    texts = [first.pretty_text, second.pretty_text]
    monkeypatch.setattr(config, 'FormatCode', counted)
    lay_out_config_once()
    lay_out_config_once()
    assert [c.pretty_text for c in (first, second, first, first)] == [
        texts[k] for k in (0, 1, 0, 0)
    ]
    assert len(calls) == 2
    first.c = 'e'
    assert "'e'" in first.pretty_text and len(calls) == 3
