package event

import "math"

// nameRule describes the gateway's rule for feature and action.
const nameRule = `2 to 64 bytes of the form ^[a-z][a-zA-Z-\.]+$`

// topNames are the fields of an event, in the order of the bits of seen in topLevel.
var topNames = []string{
	"feature", "action", "id", "timestamp", "metadata", "metadataVersion", "privateMetadata",
	"billingMetadata", "user", "client", "interaction", "featureFlags", "marketingTracking",
}

const (
	topFeature = iota
	topAction
	topID
	topTimestamp
	topMetadata
	topMetadataVersion
	topPrivateMetadata
	topBillingMetadata
	topUser
	topClient
	topInteraction
	topFeatureFlags
	topMarketingTracking
)

// topLevel decodes the members of the event.
func (p *pass) topLevel() {
	p.enter(1)
	seen, latest := 0, -1
	for first := true; p.member(first); first = false {
		key := p.bytes(p.key)
		i := indexOf(topNames, key, latest)
		if i < 0 {
			p.unknown("", key, topNames, 2)
			continue
		}
		latest = i
		if seen&(1<<i) != 0 {
			if i == topID {
				p.idState = idFaulty
			}
			p.duplicate("", key, 2)
			continue
		}
		seen |= 1 << i
		if !p.null() {
			p.topField(i)
		}
	}
}

func (p *pass) topField(i int) {
	switch i {
	case topFeature:
		p.feature = p.name("feature")
	case topAction:
		p.action = p.name("action")
	case topID:
		p.givenID()
	case topTimestamp:
		p.givenTimestamp()
	case topMetadata:
		p.metadata()
	case topMetadataVersion:
		if v, ok := p.integer("", "metadataVersion", 2, 0, math.MaxInt32); ok && v != 0 {
			p.params = appendVarintField(p.params, numParamsVersion, uint64(v))
		}
	case topPrivateMetadata:
		p.privateMetadata()
	case topBillingMetadata:
		p.params = p.submessage(p.params, numParamsBilling, billingShape)
	case topUser:
		p.rest = p.submessage(p.rest, numUser, userShape)
	case topClient:
		p.client, p.hasClient = p.object(p.client, clientShape), true
	case topInteraction:
		p.interaction()
	case topFeatureFlags:
		p.featureFlags()
	case topMarketingTracking:
		p.rest = p.submessage(p.rest, numMarketing, marketingShape)
	}
}

// submessage decodes an object of this shape and appends it as field num.
func (p *pass) submessage(dst []byte, num byte, sh *shape) []byte {
	dst, at := open(dst, num)
	return closeAt(p.object(dst, sh), at)
}

// interaction encodes the object. If it has no trace id, that of the message's attributes
// is added.
func (p *pass) interaction() {
	dst, at := open(p.rest, numInteraction)
	dst = p.object(dst, interactionShape)
	p.hasInteraction = true
	if !p.hasTrace {
		if id := p.sender.trace; id != "" {
			dst = appendBytesField(dst, numTraceID, id)
		}
	}
	p.rest = closeAt(dst, at)
}

func (p *pass) givenID() {
	p.idState = idFaulty
	b := p.topString("id")
	if b == nil {
		return
	}
	id, ok := parseID(b)
	if !ok {
		p.invalid("id: expected a UUID in its canonical form of 36 characters, got a string of %s", bytesOf(len(b)))
		return
	}
	p.id, p.idText, p.idState = id, b, idGiven
}

func (p *pass) givenTimestamp() {
	b := p.topString("timestamp")
	if b == nil {
		return
	}
	at, ok := parseInstant(b)
	if !ok {
		p.invalid("timestamp: expected RFC 3339 with at most 9 fractional digits, within the years 0001 to 9999, such as 2006-01-02T15:04:05Z, got a string of %s", bytesOf(len(b)))
		return
	}
	p.timestamp, p.hasTimestamp = at, true
}
