package event

// The attributes of a message that other parts of the worker, and the recorder,
// read and write.
const (
	AttrSchemaVersion      = attrSchema
	AttrServiceID          = attrService
	AttrServiceEnvironment = attrEnvironment
	AttrServiceVersion     = attrVersion
	AttrReplayCount        = attrReplayCount
	AttrOriginMessageID    = attrOriginID
	AttrOriginPublishTime  = attrOriginPublished
	// AttrReplayID and AttrOriginRejectedAt are on replayed messages, beside the three
	// above. The decoder ignores them.
	AttrReplayID          = "replay_id"
	AttrOriginRejectedAt  = "origin_rejected_at"
	AttrTraceparent       = attrTraceparent
	AttrGoogleTraceparent = attrGoogleTraceparent
)

// SchemaVersion is the only version of the topic message so far.
const SchemaVersion = schemaVersion
