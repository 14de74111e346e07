-- What is to be published: a row holds the notices of one transaction, each the id of a callback or of a dead letter (16 bytes) and
-- the revision of the callback (4 bytes; 0 stands for a dead letter).
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    notices INTEGER NOT NULL,
    entries BLOB NOT NULL
) STRICT;
