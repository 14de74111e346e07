-- Ended callbacks and attempts are divided by the day of their ids, so that a day goes at once when it is old. Days are made by the
-- daemons; what belongs to no day is in the default partitions, and so is everything that was there before.
ALTER TABLE settled RENAME TO settled_other;
ALTER INDEX settled_pkey          RENAME TO settled_other_pkey;
ALTER INDEX settled_task          RENAME TO settled_other_task;
ALTER INDEX settled_failed_team   RENAME TO settled_other_failed_team;
ALTER INDEX settled_failed_queue  RENAME TO settled_other_failed_queue;
ALTER INDEX settled_failed_state  RENAME TO settled_other_failed_state;
ALTER INDEX settled_failed_reason RENAME TO settled_other_failed_reason;
CREATE TABLE settled (LIKE settled_other INCLUDING DEFAULTS) PARTITION BY RANGE (id);
ALTER TABLE settled ADD PRIMARY KEY (id);
CREATE INDEX settled_task ON settled (task, id);
CREATE INDEX settled_failed_team   ON settled (team, id)   WHERE state <> 'delivered';
CREATE INDEX settled_failed_queue  ON settled (queue, id)  WHERE state <> 'delivered';
CREATE INDEX settled_failed_state  ON settled (state, id)  WHERE state <> 'delivered';
CREATE INDEX settled_failed_reason ON settled (reason, id) WHERE state <> 'delivered';

ALTER TABLE attempt RENAME TO attempt_other;
ALTER INDEX attempt_pkey RENAME TO attempt_other_pkey;
CREATE TABLE attempt (LIKE attempt_other INCLUDING DEFAULTS) PARTITION BY RANGE (id);
ALTER TABLE attempt ADD PRIMARY KEY (id, n);

-- To make a day, the server looks through all rows without one. So where there are many, the days of the next time are made now, before
-- these rows count as such; later ones are made when these rows are older than they are kept.
DO $$
DECLARE
    day   date;
    first text;
    next  text;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM settled_other) AND NOT EXISTS (SELECT 1 FROM attempt_other) THEN
        RETURN;
    END IF;
    FOR ahead IN 1..40 LOOP
        day := (now() AT TIME ZONE 'UTC')::date + ahead;
        first := lpad(to_hex((extract(epoch FROM day) * 1000)::bigint), 12, '0') || repeat('0', 20);
        next := lpad(to_hex((extract(epoch FROM day + 1) * 1000)::bigint), 12, '0') || repeat('0', 20);
        IF NOT EXISTS (SELECT 1 FROM settled_other WHERE id >= first::uuid AND id < next::uuid)
           AND NOT EXISTS (SELECT 1 FROM attempt_other WHERE id >= first::uuid AND id < next::uuid) THEN
            EXECUTE format('CREATE TABLE settled_%s PARTITION OF settled FOR VALUES FROM (%L) TO (%L)',
                           to_char(day, 'YYYYMMDD'), first, next);
            EXECUTE format('CREATE TABLE attempt_%s PARTITION OF attempt FOR VALUES FROM (%L) TO (%L)',
                           to_char(day, 'YYYYMMDD'), first, next);
            EXECUTE format('CREATE INDEX settled_%s_at ON settled_%s USING brin (settled_at) WITH (autosummarize = on)',
                           to_char(day, 'YYYYMMDD'), to_char(day, 'YYYYMMDD'));
        END IF;
    END LOOP;
END $$;
ALTER TABLE settled ATTACH PARTITION settled_other DEFAULT;
ALTER TABLE attempt ATTACH PARTITION attempt_other DEFAULT;
