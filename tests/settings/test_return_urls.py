"""Return URLs: only what everybody reads as an address below an entry of the vendor's."""

import pytest

from app.settings.return_urls import LENGTH_MAX, allowed, return_urls

APP = "https://app.example.com"
ENTRIES = return_urls(f"{APP}/aws,http://localhost:8020/,https://[2001:db8::1]:8443/a/b/")
ALLOWED = f"""
{APP}/aws
{APP}/aws/
{APP}/aws/connected
{APP}/aws/done?customer=4711&next=%2Fhome%2F..%2F
https://APP.Example.com:443/aws/x
https://app.example.com:0443/aws
{APP}/aws/.well-known/..a/.../a.b
{APP}/aws/caf%7Ee/@us,er:x(1)?name=caf%C3%A9
http://localhost:8020
http://localhost:8020?x=1
https://[2001:DB8::1]:8443/a/b/c
"""
# Another origin, or not below an entry's path
ELSEWHERE = f"""
{APP}
{APP}/
{APP}/awsome
{APP}/AWS/
{APP}:8443/aws
http://app.example.com/aws
http://app.example.com:443/aws
https://app.example.com./aws
https://app.example.com.evil.example/aws
https://evil.example/aws?{APP}/aws
https://localhost:8020/
http://localhost/
http://127.0.0.1:8020/
https://[2001:db8::1]:8443/a/bc
https://[2001:db8::1]:8443/a/
"""
MALFORMED = [
    "",
    "/aws",
    "//app.example.com/aws",
    "https:/app.example.com/aws",
    "https:app.example.com/aws",
    "https:///aws",
    "javascript:alert(1)//app.example.com/aws",
    "data:text/html,x",
    "HTTPS://app.example.com/aws",
    "ftp://app.example.com/aws",
    f" {APP}/aws",
    f"{APP}/aws ",
    f"{APP}/aws\n",
    f"{APP}/aws/\t/x",
    f"{APP}/aws/\0",
    f"{APP}/aws/é",
    f"{APP}/aws#connected",
    f"{APP}/aws?x=1#y",
    "https://user@app.example.com/aws",
    "https://user:secret@app.example.com/aws",
    f"{APP}@evil.example/aws",
    "https://app.example.com\\@evil.example/aws",
    "https:\\\\app.example.com\\aws",
    f"{APP}\\.evil.example/aws",
    f"{APP}/aws\\..\\admin",
    f"{APP}/aws/../admin",
    f"{APP}/aws/..",
    f"{APP}/aws/./x",
    f"{APP}/aws/.?x=1",
    f"{APP}/aws/caf%C3%A9",
    f"{APP}/aws/..%3Ba/admin",
    f"{APP}/aws/..%20/admin",
    f"{APP}/aws/.%20./admin",
    f"{APP}/aws/%c0%ae%c0%ae/admin",
    f"{APP}/aws/%ef%bc%8e%ef%bc%8e/admin",
    f"{APP}/aws/%2e%2e/admin",
    f"{APP}/aws/.%2E/admin",
    f"{APP}/aws/%252e%252e/admin",
    f"{APP}/aws/..%2fadmin",
    f"{APP}/aws/..%5Cadmin",
    f"{APP}/aws/..;/admin",
    f"{APP}/aws//admin",
    f"{APP}//aws",
    f"https://evil.example/{APP}",
    f"{APP}/aws/%0d%0aSet-Cookie:x",
    f"{APP}/aws?x=%00",
    f"{APP}/aws?x=%7f",
    f"{APP}/aws/%",
    f"{APP}/aws/%4",
    f"{APP}/aws/%zz",
    f'{APP}/aws/"><script>',
    f"{APP}/aws?x='\"><b>",
    f"{APP}:port/aws",
    f"{APP}:/aws",
    f"{APP}:123456/aws",
    "https://bücher.example/aws",
    "https://exa%6dple.com/aws",
    "https://[::1/aws",
]


def test_an_url_below_an_entry_is_allowed():
    for text in ALLOWED.split():
        assert allowed(text, ENTRIES).text == text


def test_an_url_of_another_origin_or_path_is_refused():
    for text in ELSEWHERE.split():
        with pytest.raises(ValueError, match="the origin of an entry of DEPUTY_RETURN_URLS"):
            allowed(text, ENTRIES)
    with pytest.raises(ValueError, match="the origin of an entry"):
        allowed(f"{APP}/aws", ())


@pytest.mark.parametrize("text", MALFORMED)
def test_an_url_that_some_would_read_otherwise_is_refused(text):
    with pytest.raises(ValueError, match="must be an http:// or https:// URL without user"):
        allowed(text, ENTRIES)
    with pytest.raises(ValueError, match="must be an http:// or https:// URL without user"):
        return_urls(f"{text},{APP}")


def test_an_url_has_a_length_and_a_port():
    longest = f"{APP}/aws/".ljust(LENGTH_MAX, "x")
    assert allowed(longest, ENTRIES)
    with pytest.raises(ValueError, match="2048"):
        allowed(f"{longest}x", ENTRIES)
    for port in ("0", "00", "65536", "99999"):
        with pytest.raises(ValueError, match="from 1 to 65535"):
            allowed(f"{APP}:{port}/aws", ENTRIES)


def test_the_button_keeps_the_urls_query_and_adds_the_link_and_the_status_once():
    for text, address in (
        (f"{APP}/aws", f"{APP}/aws?deputy_link=5&status=connected"),
        (f"{APP}/aws?", f"{APP}/aws?deputy_link=5&status=connected"),
        (f"{APP}/aws?a=1&b=%2F", f"{APP}/aws?a=1&b=%2F&deputy_link=5&status=connected"),
    ):
        assert allowed(text, ENTRIES).connected(5) == address
    alike = ("deputy_link%5b%5d=1", "Deputy_Link=1&STATUS=1", "deputy.link=1", "+status=1")
    for query in ("status=connected", "a=1&deputy_link=", "st%61tus", "x&status", *alike):
        with pytest.raises(ValueError, match=r"must not have the parameter (status|deputy_link)"):
            allowed(f"{APP}/aws?{query}", ENTRIES)


def test_entries_have_no_query_and_are_twenty_at_most():
    assert return_urls("") == ()
    for text in (f"{APP}/aws?", f"{APP}/aws?x=1"):
        with pytest.raises(ValueError, match="without query"):
            return_urls(text)
    twenty = ",".join([APP] * 20)
    assert len(return_urls(twenty)) == 20
    with pytest.raises(ValueError, match="20 entries at most"):
        return_urls(f"{twenty},{APP}")
    with pytest.raises(ValueError, match="must be an http"):
        return_urls(f"{APP},")
