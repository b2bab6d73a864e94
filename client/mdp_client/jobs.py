"""Jobs that fill large windows, as handles: one, or several started together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from mdp_client.core.following import cancel_job, check_failed, follow, read_job

if TYPE_CHECKING:
    from mdp_client.async_client import AsyncClient
    from mdp_client.client import Client
    from mdp_client.records import FailedSeries, JobStatus
    from mdp_client.transport.progress import Progress


class JobHandle:
    """A job, and its state when the handle was made."""

    def __init__(self, known: JobStatus) -> None:
        self.known = known

    @property
    def id(self) -> int:
        """The number under which the service knows the job."""
        return self.known.job

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.known.series}>"


class Job(JobHandle):
    """A job of `Client`."""

    def __init__(self, client: Client, known: JobStatus) -> None:
        super().__init__(known)
        self._client = client

    def status(self) -> JobStatus:
        """Read the job's state."""
        return self._client.run(lambda call: read_job(call, self.known.status_url))

    def wait(self, progress: Progress = "auto") -> JobStatus:
        """Wait for the job's end; Ctrl-C leaves it running.

        Raises:
            JobFailed: It failed, was cancelled, or makes no progress.
        """
        (ended,) = self._client.run(
            lambda call: follow(call, [self.known], first_pause=0.0), progress
        )
        return ended

    def cancel(self) -> JobStatus:
        """Cancel the job; what it has fetched stays."""
        return self._client.run(lambda call: cancel_job(call, self.known.status_url))


class AsyncJob(JobHandle):
    """A job of `AsyncClient`."""

    def __init__(self, client: AsyncClient, known: JobStatus) -> None:
        super().__init__(known)
        self._client = client

    async def status(self) -> JobStatus:
        """Read the job's state."""
        return await self._client.run(lambda call: read_job(call, self.known.status_url))

    async def wait(self, progress: Progress = "auto") -> JobStatus:
        """Wait for the job's end; as `Job.wait`."""
        (ended,) = await self._client.run(
            lambda call: follow(call, [self.known], first_pause=0.0), progress
        )
        return ended

    async def cancel(self) -> JobStatus:
        """Cancel the job; what it has fetched stays."""
        return await self._client.run(lambda call: cancel_job(call, self.known.status_url))


class _Several:
    """Several jobs, and the series that have none."""

    def __init__(self, known: Sequence[JobStatus], failed: Sequence[FailedSeries]) -> None:
        self.known = tuple(known)
        self.failed = tuple(failed)
        """Series for which there is no job, each with the reason."""

    @property
    def id(self) -> int:
        """The number of the job where it is one.

        Raises:
            AttributeError: There are several, or none.
        """
        if len(self.known) != 1:
            message = f"these are {len(self.known)} jobs: take the id of one of them"
            raise AttributeError(message)
        return self.known[0].job

    def __len__(self) -> int:
        return len(self.known)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(str(job.job) for job in self.known)}>"


class Jobs(_Several, Sequence[Job]):
    """Jobs of `Client`, with the same methods over all of them."""

    def __init__(
        self, client: Client, known: Sequence[JobStatus], failed: Sequence[FailedSeries] = ()
    ) -> None:
        super().__init__(known, failed)
        self._client = client

    @overload
    def __getitem__(self, index: int) -> Job: ...

    @overload
    def __getitem__(self, index: slice) -> Jobs: ...

    def __getitem__(self, index: int | slice) -> Job | Jobs:
        if isinstance(index, slice):
            return Jobs(self._client, self.known[index])
        return Job(self._client, self.known[index])

    def status(self) -> tuple[JobStatus, ...]:
        """Read the jobs' states."""
        return tuple(job.status() for job in self)

    def wait(self, progress: Progress = "auto") -> tuple[JobStatus, ...]:
        """Wait for the end of all jobs; Ctrl-C leaves them running.

        Raises:
            JobFailed: One failed, was cancelled, or none makes progress.
            MdpError: A series has no job; raised when those that have one are done.
        """
        ended = self._client.run(lambda call: follow(call, self.known, first_pause=0.0), progress)
        check_failed(self.failed)
        return ended

    def cancel(self) -> tuple[JobStatus, ...]:
        """Cancel all jobs; what they have fetched stays."""
        return tuple(job.cancel() for job in self)


class AsyncJobs(_Several, Sequence[AsyncJob]):
    """Jobs of `AsyncClient`, with the same methods over all of them."""

    def __init__(
        self, client: AsyncClient, known: Sequence[JobStatus], failed: Sequence[FailedSeries] = ()
    ) -> None:
        super().__init__(known, failed)
        self._client = client

    @overload
    def __getitem__(self, index: int) -> AsyncJob: ...

    @overload
    def __getitem__(self, index: slice) -> AsyncJobs: ...

    def __getitem__(self, index: int | slice) -> AsyncJob | AsyncJobs:
        if isinstance(index, slice):
            return AsyncJobs(self._client, self.known[index])
        return AsyncJob(self._client, self.known[index])

    async def status(self) -> tuple[JobStatus, ...]:
        """Read the jobs' states."""
        return tuple([await job.status() for job in self])

    async def wait(self, progress: Progress = "auto") -> tuple[JobStatus, ...]:
        """Wait for the end of all jobs; as `Jobs.wait`."""
        ended = await self._client.run(
            lambda call: follow(call, self.known, first_pause=0.0), progress
        )
        check_failed(self.failed)
        return ended

    async def cancel(self) -> tuple[JobStatus, ...]:
        """Cancel all jobs; what they have fetched stays."""
        return tuple([await job.cancel() for job in self])
