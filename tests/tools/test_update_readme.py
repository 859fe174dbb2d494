def test_the_readme_lists_what_the_catalogs_hold(run_tool, capsys):
    status, _, err = run_tool('update_readme', '--check', capsys=capsys)
    assert status == 0, err
