-- Attempts that failed, by the hour in which they began, and within an hour by the id of their callback: searches by the time of a
-- failure read them newest event first. Partial: a first delivery writes no attempt. Every day has this index, and days that are made
-- later get it, too.
CREATE INDEX attempt_failed ON attempt ((begun_at / 3600000), id, begun_at) WHERE outcome <> 'ok';
