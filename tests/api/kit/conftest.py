def pytest_ignore_collect(collection_path, config):
    """To collect these, schemathesis builds their requests, which takes seconds: only `make
    soak` waits for that.
    """
    return (
        True
        if collection_path.name == "test_schemathesis_at_length.py"
        and config.option.markexpr != "soak"
        else None
    )
