"""Lists what the pages show and no test runs."""


def pytest_terminal_summary(terminalreporter):
    from test_pages import BLOCKS

    for block in BLOCKS:
        if block.not_run is not None:
            terminalreporter.write_line(f"not run: {block.page}:{block.line} {block.language}: {block.not_run}")
