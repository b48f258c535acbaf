-- Additive with a default: the release before goes on working, and gives up every answer whose client has hung up.

ALTER TABLE tollway.models
    ADD COLUMN on_disconnect text NOT NULL DEFAULT 'cancel'
        CONSTRAINT "on_disconnect is cancel or drain" CHECK (on_disconnect IN ('cancel', 'drain'));
COMMENT ON COLUMN tollway.models.on_disconnect IS
    'of an answer whose client hung up: cancel gives it up at once, drain reads it to its end and bills what the provider counts';
