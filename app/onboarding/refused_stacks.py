"""Answers to stacks whose messages are refused without the database.

Anybody can publish any number of such messages. Separate threads send the answers. So they delay
neither other answers nor the reading of the queue. When the waiting list is full, a message stays
in the queue, and SQS delivers it again.
"""

import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

from app.aws.stack_answers import StackAnswers
from app.aws.stack_messages import BATCH, Message, RegistrationQueue, Request
from app.log import logger

_THREADS = 2
_WAITING = 200  # messages


class _Refused(NamedTuple):
    message: Message
    request: Request
    refusal: str | None  # None: a SUCCESS that changes nothing


class RefusedStacks:
    """A queue of refused messages and the threads that answer them.

    `answer` returns at once. The threads start with the first message.
    """

    def __init__(self, messages: RegistrationQueue, answers: Callable[[], StackAnswers]) -> None:
        self._messages = messages
        self._answers = answers
        self._waiting: queue.Queue[_Refused] = queue.Queue(_WAITING)
        self._lock = threading.Lock()  # around starting
        self._started = False

    def answer(self, message: Message, request: Request, refusal: str | None) -> None:
        with self._lock:
            if not self._started:
                self._started = True
                for _ in range(_THREADS):
                    threading.Thread(target=self._run, name="refused-stacks", daemon=True).start()
        try:
            self._waiting.put_nowait(_Refused(message, request, refusal))
        except queue.Full:
            return

    def wait(self) -> None:
        """Return when every waiting message is answered."""
        self._waiting.join()

    def _run(self) -> None:
        while True:
            refused = [self._waiting.get()]
            while len(refused) < BATCH and not self._waiting.empty():
                refused.append(self._waiting.get())
            try:
                self._messages.delete([one.message for one in refused if self._send(one)])
            except Exception as error:  # noqa: BLE001
                # SQS delivers them again. The thread must survive.
                logger.warning("registration.postponed", error=type(error).__name__)
            finally:
                for _ in refused:
                    self._waiting.task_done()

    def _send(self, refused: _Refused) -> bool:
        return self._answers().send(refused.request, refused.refusal)
