-- Version 3: a part that is longer than it should be is gone through by place; `walked` is how far,
-- in blocks of its file.

ALTER TABLE @fleet_parts ADD COLUMN walked bigint NOT NULL DEFAULT 0;
