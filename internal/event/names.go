package event

// The attributes of a message that other parts of the worker and the recorder use.
const (
	AttrSchemaVersion      = attrSchema
	AttrServiceID          = attrService
	AttrServiceEnvironment = attrEnvironment
	AttrServiceVersion     = attrVersion
	AttrReplayCount        = attrReplayCount
	AttrOriginMessageID    = attrOriginID
	AttrOriginPublishTime  = attrOriginPublished
	// Replayed messages have AttrReplayID and AttrOriginRejectedAt, too. The decoder
	// ignores them.
	AttrReplayID          = "replay_id"
	AttrOriginRejectedAt  = "origin_rejected_at"
	AttrTraceparent       = attrTraceparent
	AttrGoogleTraceparent = attrGoogleTraceparent
)

// SchemaVersion is the only version of the topic's messages so far.
const SchemaVersion = schemaVersion
