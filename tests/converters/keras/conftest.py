"""TensorFlow, imported once."""

import pytest

from trtjob.converters.keras import packages
from trtjob.garbage import lasting


@pytest.fixture(scope="session")
def keras() -> None:
    """Keras, in which no garbage is looked for: after each model that is closed all other memory is searched."""
    with lasting():
        packages.keras()


@pytest.fixture(autouse=True)
def _keras_at_hand(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("extra"):
        request.getfixturevalue("keras")
