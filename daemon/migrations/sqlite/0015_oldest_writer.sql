-- The oldest schema that a program must know to write to this store. The number of the schema itself is in user_version. An additive
-- migration leaves this number as it is.
CREATE TABLE schema_version (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    oldest_writer INTEGER NOT NULL
) STRICT;
INSERT INTO schema_version (one, oldest_writer) VALUES (1, 14);
