"""Weak callbacks: they call while there is somebody, and keep nobody alive."""

import gc
import weakref

from offhook.weak import weakly


class Owner:
    def __init__(self) -> None:
        self.heard: list[str] = []
        self.callback = weakly(self.hear)

    def hear(self, word: str) -> None:
        self.heard.append(word)


def test_it_calls_while_its_object_lives() -> None:
    owner = Owner()
    owner.callback("here")
    assert owner.heard == ["here"]


def test_an_object_that_holds_its_own_callback_goes_without_the_collector() -> None:
    gc.disable()
    try:
        owner = Owner()
        callback, gone = owner.callback, weakref.ref(owner)
        del owner
        assert gone() is None
        callback("nobody")
    finally:
        gc.enable()
