"""Answers to stacks whose messages are refused without the database.

Anybody can publish any number of such messages. Separate threads send the answers, so they delay
neither other answers nor the reading of the queue. When the waiting list is full, a message stays
in the queue, and SQS delivers it again.
"""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress

from app.aws.stack_messages import BATCH, Message, RegistrationQueue, Request, StackAnswers
from app.log import logger

_THREADS = 2
_WAITING = 200  # most messages that wait for a thread


class RefusedStacks:
    """A queue of refused messages and the threads that answer them.

    `answer` returns at once. The threads start with the first message.
    """

    def __init__(self, messages: RegistrationQueue, answers: Callable[[], StackAnswers]) -> None:
        self._messages = messages
        self._answers = answers
        self._waiting: queue.Queue[tuple[Message, Request, str | None]] = queue.Queue(_WAITING)
        self._lock = threading.Lock()  # held while the threads are started
        self._started = False

    def answer(self, message: Message, request: Request, refusal: str | None) -> None:
        """Queue the answer. `refusal`: None for a SUCCESS that changes nothing."""
        with self._lock:
            if not self._started:
                self._started = True
                for _ in range(_THREADS):
                    threading.Thread(target=self._run, name="refused-stacks", daemon=True).start()
        with suppress(queue.Full):
            self._waiting.put_nowait((message, request, refusal))

    def wait(self) -> None:
        """Return when every waiting message is answered."""
        self._waiting.join()

    def _run(self) -> None:
        while True:
            refused = [self._waiting.get()]
            while len(refused) < BATCH and not self._waiting.empty():
                refused.append(self._waiting.get())
            answered = []
            try:
                for message, request, refusal in refused:
                    if self._answers().send(request, refusal):
                        answered.append(message)
                self._messages.delete(answered)
            except Exception as error:  # noqa: BLE001
                # SQS delivers the messages again. The thread must survive.
                logger.warning("registration.postponed", error=type(error).__name__)
            finally:
                for _ in refused:
                    self._waiting.task_done()
