"""The ASCII form of the vendor's name."""

import pytest

from app.settings.valid_values import ascii_form


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("Müller, Söhne & Co.", "Muller Sohne Co."),
        ("O'Reilly", "OReilly"),
        ("Acme 株式会社", "Acme"),
        ("\uff21\uff23\uff2d\uff25", "ACME"),  # in full width
        ("- Éclair -", "Eclair -"),
        ("Acme 2.0 (EU)", "Acme 2.0 EU"),
    ],
)
def test_the_ascii_form_is_the_name_without_marks_and_other_characters(name, form):
    assert ascii_form(name) == form
