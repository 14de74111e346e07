-- Bodies of callbacks that have ended, so that they can be sent again (store.bodies). They are compressed already; `size` is the
-- size of the body itself. Ids begin with the event's time, so the first ones are the oldest.
CREATE TABLE kept_body (
    id    uuid PRIMARY KEY,
    size  bigint NOT NULL,
    bytes bytea NOT NULL
);
ALTER TABLE kept_body ALTER COLUMN bytes SET STORAGE EXTERNAL;
-- The bytes of all kept bodies.
ALTER TABLE store ADD COLUMN kept_bytes bigint NOT NULL DEFAULT 0;
-- Callbacks that are sent again: their settled rows name queues of their own.
CREATE INDEX pending_round ON pending (id) WHERE round > 0;
