"""Make the client once, whoever calls first: the twin of the original's `database/mongo.go`.

    var (
        instance MongoInstance
        once     sync.Once
    )

    func Connect() MongoInstance {
        once.Do(func() {
            client, err := mongo.Connect(ctx, options.Client().ApplyURI(uri))
            if err != nil { log.Println(err); return }
            instance = MongoInstance{Client: client, DB: client.Database(name)}
        })
        return instance
    }

Go's `Once` counts a call that failed as done, so the original hands out an instance of nils for ever, and each caller
panics where it first uses it. Here a failure is kept, too, but as what it is: it is raised again to every caller.

Since either is for ever, only what cannot get better by itself may stand inside. So `connect` builds, and it does not
dial: reaching the server is a wait of its own (`MongoDatabase.wait_for_connection`), under a context, with a deadline,
and it may succeed later. And the original's variables belong to the package, set when it is imported; here they belong
to an object, so importing this reads and opens nothing, and two tests do not share a client.
"""

from dataclasses import dataclass

from patterns.once import OnceStatistics, OnceValue
from runtime.mongo import MongoDatabase
from runtime.mongo_client import Client
from runtime.mongo_settings import MongoSettings


@dataclass(frozen=True, slots=True)
class MongoInstance:
    """What every caller of `connect` gets: the client, and the database that is reached through it."""

    database: MongoDatabase

    @property
    def client(self) -> Client:
        """The driver's client at this moment; a changed password replaces it, so do not keep it."""
        return self.database.client


class Mongo:
    """The place where the one client of a process comes from; safe among tasks and threads.

    Args:
        settings: where the server is; not looked at before the first call.
        application_name: what the server's logs call this process.
    """

    def __init__(self, settings: MongoSettings, *, application_name: str) -> None:
        self._settings = settings
        self._application_name = application_name
        self._instance = OnceValue(self._build)

    async def connect(self) -> MongoInstance:
        """Return the instance; the first caller builds it, all others get the same one. Nobody is dialled.

        A caller that is cancelled while another one builds just leaves.

        Raises:
            OSError, ValueError: The password's file could not be read when the first caller came; every caller hears of
                it.
        """
        return await self._instance.get()

    def connect_sync(self) -> MongoInstance:
        """Do the same in a thread that runs no event loop."""
        return self._instance.get_sync()

    def statistics(self) -> OnceStatistics:
        """Return whether the client was built, and how often that was begun."""
        return self._instance.statistics()

    def _build(self) -> MongoInstance:
        return MongoInstance(MongoDatabase(self._settings, application_name=self._application_name))
