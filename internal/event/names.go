package event

// The attributes of a message that other parts of the worker read and write.
const (
	AttrServiceID          = attrService
	AttrServiceEnvironment = attrEnvironment
	AttrServiceVersion     = attrVersion
	AttrReplayCount        = attrReplayCount
	AttrOriginMessageID    = attrOriginID
	AttrOriginPublishTime  = attrOriginPublished
)
