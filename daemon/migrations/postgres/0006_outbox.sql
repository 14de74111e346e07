-- What is to be published: a row holds the notices of one transaction, each the id of a callback or of a dead letter (16 bytes) and
-- the revision of the callback (4 bytes; 0 stands for a dead letter). `holder` is the instance that publishes it until `held_until`;
-- after that, any instance may.
CREATE TABLE outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    notices    bigint NOT NULL,
    entries    bytea NOT NULL,
    holder     bigint,
    held_until bigint NOT NULL
);
