-- How often the daemon died, one time after the other, while it read a partition from the same place. `taken_upto` is the
-- watermark at which the partition was taken last.
ALTER TABLE partition_offsets ADD COLUMN taken_upto INTEGER;
ALTER TABLE partition_offsets ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;
-- The id of each run, which is also in Kafka beside the offsets that the run commits. A copy of the store does not know the
-- runs that began after it was made.
ALTER TABLE instance ADD COLUMN run TEXT;
