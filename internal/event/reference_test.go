package event

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
	gateway "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

// reference is a decoder written to be obviously right: a tree, regular expressions, the
// generated types. The tests compare the fast one with it.
type reference struct {
	services           *policy.Set
	defaultEnvironment string
}

// outcome has the results that both decoders must share.
type outcome struct {
	reason    Reason
	id        string
	publisher Publisher
	event     *gateway.Event
}

var (
	refService = regexp.MustCompile(`^[a-z0-9-]+$`)
	refName    = regexp.MustCompile(`^[a-z][a-zA-Z-\.]+$`)
	refUUID    = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)
	refTime    = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)
	refCount   = regexp.MustCompile(`^[1-9][0-9]*$`)
	refInteger = regexp.MustCompile(`^-?[0-9]+$`)
	refTrace   = regexp.MustCompile(`^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}((?s)-.*)?$`)
)

func (r reference) decode(m Message) outcome {
	if v, ok := m.Attributes["schema_version"]; ok && v != "1" {
		return outcome{reason: UnsupportedSchema}
	}
	serviceID := m.Attributes["service_id"]
	service, ok := r.services.Lookup(serviceID)
	if !ok || !refService.MatchString(serviceID) {
		return outcome{reason: UnknownService}
	}
	publisher := Publisher{serviceID, r.defaultEnvironment}
	if e := m.Attributes["service_environment"]; e != "" {
		publisher.Environment = strings.ToValidUTF8(e, "\uFFFD")
	}
	if !refSyntax(m.Data) {
		return outcome{reason: MalformedPayload}
	}
	dec := jsontext.NewDecoder(bytes.NewReader(m.Data), jsontext.AllowDuplicateNames(true))
	doc := refTree(dec).(refObject)

	messageID, published := m.ID, m.PublishTime
	if n, err := strconv.Atoi(m.Attributes["replay_count"]); err == nil && n > 0 && refCount.MatchString(m.Attributes["replay_count"]) {
		origin := m.Attributes["origin_message_id"]
		at, ok := refParseTime(m.Attributes["origin_publish_time"])
		if origin != "" && ok {
			messageID, published = origin, at
		}
	}
	id, idOK := refID(doc, messageID, published)
	event, private, err := refEvent(doc, published)
	if err != nil || !idOK {
		return outcome{reason: InvalidEvent, id: id}
	}
	switch {
	case !service.AllowsEnvironment(publisher.Environment),
		!service.AllowsFeature(event.GetFeature()),
		service.PrivateMetadata == policy.RejectPrivate && service.Catalogue == nil && private,
		service.Catalogue != nil && refUnlisted(service, event):
		return outcome{reason: PolicyViolation, id: id}
	case service.PrivateMetadata != policy.AllowPrivate:
		refDrop(service, event)
	}
	event.Id = id
	event.Source.Server = &gateway.EventSource_Server{Version: strings.ToValidUTF8(m.Attributes["service_version"], "\uFFFD")}
	trace := refTraceID(m.Attributes["traceparent"])
	if trace == "" {
		trace = refTraceID(m.Attributes["googclient_traceparent"])
	}
	if interaction := event.GetInteraction(); trace != "" && (interaction == nil || interaction.TraceId == nil) {
		if interaction == nil {
			interaction = &gateway.EventInteraction{}
		}
		interaction.TraceId = &trace
		event.Interaction = interaction
	}
	wire, err := proto.Marshal(event)
	if err != nil {
		panic(err)
	}
	size, err := refJSONSize(wire, publisher)
	if err != nil {
		panic(err)
	}
	if len(wire) > 4<<20-64<<10 || size >= 9_900_000 {
		return outcome{reason: Oversized, id: id}
	}
	return outcome{id: id, publisher: publisher, event: event}
}

// refUnlisted reports whether the catalogue forbids the event.
func refUnlisted(service *policy.Service, event *gateway.Event) bool {
	fields, ok := service.Catalogue[policy.EventName{Feature: event.GetFeature(), Action: event.GetAction()}]
	if service.RejectUnlisted {
		if !ok {
			return true
		}
		for key := range event.GetParameters().GetMetadata() {
			if !fields.Metadata[key] && key != "telemetry.error" {
				return true
			}
		}
	}
	if service.PrivateMetadata == policy.RejectPrivate {
		for key := range event.GetParameters().GetPrivateMetadata().GetFields() {
			if !fields.Private[key] {
				return true
			}
		}
	}
	return false
}

// refDrop takes out of the event what the catalogue does not list.
func refDrop(service *policy.Service, event *gateway.Event) {
	listed := service.Catalogue[policy.EventName{Feature: event.GetFeature(), Action: event.GetAction()}].Private
	kept := event.GetParameters().GetPrivateMetadata().GetFields()
	maps.DeleteFunc(kept, func(key string, _ *structpb.Value) bool { return !listed[key] })
	if len(kept) == 0 {
		event.Parameters.PrivateMetadata = nil
	}
}

// refJSONSize computes the size of an event as the gateway does.
func refJSONSize(wire []byte, publisher Publisher) (int, error) {
	var event gateway.Event
	if err := proto.Unmarshal(wire, &event); err != nil {
		return 0, err
	}
	metadata := &gateway.RecordEventsRequestMetadata{
		RequestId: strings.Repeat("0", idLen),
		Identifier: &gateway.Identifier{Identifier: &gateway.Identifier_ManagedService{
			ManagedService: &gateway.Identifier_ManagedServiceIdentifier{
				ServiceId:          publisher.ServiceID,
				ServiceEnvironment: &publisher.Environment,
			},
		}},
	}
	total := 0
	for _, m := range []proto.Message{&event, metadata} {
		rendered, err := protojson.Marshal(m)
		if err != nil {
			return 0, err
		}
		// encoding/json compacts the output of a Marshaler and escapes HTML in it.
		escaped, err := json.Marshal(json.RawMessage(rendered))
		if err != nil {
			return 0, err
		}
		total += len(escaped)
	}
	return total, nil
}

// refSyntax reports whether data is one object that is not nested too deeply.
func refSyntax(data []byte) bool {
	dec := jsontext.NewDecoder(bytes.NewReader(data), jsontext.AllowDuplicateNames(true))
	if dec.PeekKind() != '{' {
		return false
	}
	for n := 0; ; n++ {
		if n > 0 && dec.StackDepth() == 0 {
			_, err := dec.ReadToken()
			return errors.Is(err, io.EOF)
		}
		if _, err := dec.ReadToken(); err != nil || dec.StackDepth() > 100 {
			return false
		}
	}
}

type (
	refObject []refMember
	refMember struct {
		name  string
		value any
	}
	refNumber string
)

func refTree(dec *jsontext.Decoder) any {
	token, err := dec.ReadToken()
	if err != nil {
		panic(err)
	}
	switch token.Kind() {
	case '{':
		object := refObject{}
		for dec.PeekKind() != '}' {
			name := refTree(dec).(string)
			object = append(object, refMember{name, refTree(dec)})
		}
		_, _ = dec.ReadToken()
		return object
	case '[':
		list := []any{}
		for dec.PeekKind() != ']' {
			list = append(list, refTree(dec))
		}
		_, _ = dec.ReadToken()
		return list
	case '"':
		return token.String()
	case '0':
		return refNumber(token.String())
	case 'n':
		return nil
	default:
		return token.Bool()
	}
}

var errInvalid = errors.New("invalid event")

func refCheck(ok bool) {
	if !ok {
		panic(errInvalid)
	}
}

// fields returns the members that are not null. Each must be among the names, and none may
// occur twice.
func (o refObject) fields(names ...string) map[string]any {
	all, given := map[string]bool{}, map[string]any{}
	for _, m := range o {
		refCheck((len(names) == 0 || slices.Contains(names, m.name)) && !all[m.name])
		all[m.name] = true
		if m.value != nil || len(names) == 0 {
			given[m.name] = m.value
		}
	}
	return given
}

func refID(doc refObject, messageID string, published time.Time) (string, bool) {
	var given []any
	for _, m := range doc {
		if m.name == "id" {
			given = append(given, m.value)
		}
	}
	if len(given) == 0 || len(given) == 1 && given[0] == nil {
		var id [16]byte
		milli := uint64(published.UnixMilli())
		for i := 5; i >= 0; i-- {
			id[i] = byte(milli)
			milli >>= 8
		}
		sum := sha256.Sum256([]byte(messageID))
		copy(id[6:], sum[:10])
		id[6] = id[6]&0x0f | 0x70
		id[8] = id[8]&0x3f | 0x80
		return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]), true
	}
	id, ok := given[0].(string)
	if !ok || len(given) > 1 || !refUUID.MatchString(id) {
		return "", false
	}
	return id, true
}

func refEvent(doc refObject, published time.Time) (event *gateway.Event, private bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			if e, ok := r.(error); !ok || !errors.Is(e, errInvalid) {
				panic(r)
			}
			err = errInvalid
		}
	}()
	f := doc.fields("feature", "action", "id", "timestamp", "metadata", "metadataVersion", "privateMetadata",
		"billingMetadata", "user", "client", "interaction", "featureFlags", "marketingTracking")
	event = &gateway.Event{Source: &gateway.EventSource{}, Parameters: &gateway.EventParameters{}}
	event.Feature, event.Action = refFeature(f["feature"]), refFeature(f["action"])
	if s, ok := f["timestamp"]; ok {
		s, isString := s.(string)
		at, ok := refParseTime(s)
		refCheck(isString && ok)
		published = at
	}
	event.Timestamp = timestamppb.New(published)
	refCheck(event.GetTimestamp().IsValid())
	params := event.GetParameters()
	if o, ok := f["metadata"]; ok {
		params.Metadata = map[string]float64{}
		for name, v := range refFields(o) {
			params.Metadata[name] = refDouble(v)
		}
		refAttributes(params.GetMetadata())
	}
	if v, ok := f["metadataVersion"]; ok {
		i := refInt(v)
		refCheck(i >= 0 && i <= math.MaxInt32)
		params.Version = int32(i)
	}
	if o, ok := f["privateMetadata"]; ok {
		_, ok := o.(refObject)
		refCheck(ok)
		params.PrivateMetadata = refValue(o).GetStructValue()
		private = len(params.GetPrivateMetadata().GetFields()) > 0
	}
	if o, ok := f["billingMetadata"]; ok {
		b := refFields(o, "product", "category")
		params.BillingMetadata = &gateway.EventBillingMetadata{
			Product: refZero(refString(b, "product")), Category: refZero(refString(b, "category")),
		}
	}
	if o, ok := f["user"]; ok {
		u := refFields(o, "samsExternalId", "anonymousUserId", "userId")
		event.User = &gateway.EventUser{
			SamsExternalId: refString(u, "samsExternalId"), AnonymousUserId: refString(u, "anonymousUserId"),
		}
		if v, ok := u["userId"]; ok {
			event.User.UserId = new(refInt(v))
		}
	}
	if o, ok := f["client"]; ok {
		c := refFields(o, "name", "version")
		event.Source.Client = &gateway.EventSource_Client{Name: refZero(refString(c, "name")), Version: refString(c, "version")}
	}
	if o, ok := f["interaction"]; ok {
		i := refFields(o, "traceId", "interactionId", "countryCode")
		event.Interaction = &gateway.EventInteraction{TraceId: refString(i, "traceId"), InteractionId: refString(i, "interactionId")}
		if code := refString(i, "countryCode"); code != nil {
			event.Interaction.Geolocation = &gateway.EventInteraction_Geolocation{CountryCode: *code}
		}
	}
	if o, ok := f["featureFlags"]; ok {
		event.FeatureFlags = &gateway.EventFeatureFlags{Flags: map[string]string{}}
		flags := refFields(o)
		for name := range flags {
			event.FeatureFlags.Flags[name] = refZero(refString(flags, name))
		}
	}
	if o, ok := f["marketingTracking"]; ok {
		t := refFields(o, "url", "firstSourceUrl", "cohortId", "referrer", "lastSourceUrl", "deviceSessionId", "sessionReferrer", "sessionFirstUrl")
		event.MarketingTracking = &gateway.EventMarketingTracking{
			Url: refString(t, "url"), FirstSourceUrl: refString(t, "firstSourceUrl"), CohortId: refString(t, "cohortId"),
			Referrer: refString(t, "referrer"), LastSourceUrl: refString(t, "lastSourceUrl"),
			DeviceSessionId: refString(t, "deviceSessionId"), SessionReferrer: refString(t, "sessionReferrer"),
			SessionFirstUrl: refString(t, "sessionFirstUrl"),
		}
	}
	return event, private, nil
}

// refAttributes checks the entries that become attributes at the gateway.
func refAttributes(metadata map[string]float64) {
	n := 0
	for key, value := range metadata {
		if more, ok := strings.CutPrefix(key, "recordsPrivateMetadata"); ok && len(more) >= 2 && value > 0 {
			refCheck(len(key) <= 250)
			n++
		}
	}
	refCheck(n <= 96)
}

func refFields(v any, names ...string) map[string]any {
	o, ok := v.(refObject)
	refCheck(ok)
	return o.fields(names...)
}

func refFeature(v any) string {
	s, ok := v.(string)
	refCheck(ok && len(s) <= 64 && refName.MatchString(s))
	return s
}

// refString returns the string of this name, or nil.
func refString(fields map[string]any, name string) *string {
	v, ok := fields[name]
	if !ok {
		return nil
	}
	s, ok := v.(string)
	refCheck(ok)
	return &s
}

func refZero(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func refDouble(v any) float64 {
	n, ok := v.(refNumber)
	refCheck(ok)
	f, err := strconv.ParseFloat(string(n), 64)
	refCheck(err == nil)
	return f
}

func refInt(v any) int64 {
	n, ok := v.(refNumber)
	refCheck(ok && refInteger.MatchString(string(n)))
	i, err := strconv.ParseInt(string(n), 10, 64)
	refCheck(err == nil)
	return i
}

func refValue(v any) *structpb.Value {
	switch v := v.(type) {
	case nil:
		return structpb.NewNullValue()
	case bool:
		return structpb.NewBoolValue(v)
	case string:
		return structpb.NewStringValue(v)
	case refNumber:
		return structpb.NewNumberValue(refDouble(v))
	case []any:
		list := &structpb.ListValue{}
		for _, e := range v {
			list.Values = append(list.Values, refValue(e))
		}
		return structpb.NewListValue(list)
	default:
		object := &structpb.Struct{Fields: map[string]*structpb.Value{}}
		for name, e := range v.(refObject).fields() {
			object.Fields[name] = refValue(e)
		}
		return structpb.NewStructValue(object)
	}
}

func refParseTime(s string) (time.Time, bool) {
	if !refTime.MatchString(s) {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	return t, err == nil && timestamppb.New(t).IsValid()
}

func refTraceID(s string) string {
	m := refTrace.FindStringSubmatch(s)
	if m == nil || m[1] == "ff" || m[1] == "00" && m[4] != "" || strings.Trim(m[2], "0") == "" || strings.Trim(m[3], "0") == "" {
		return ""
	}
	return m[2]
}

// refEqual says how the outcome of the fast decoder differs; "" if it does not.
func refEqual(want outcome, event Event, rejection *Rejection) string {
	if rejection != nil {
		switch {
		case rejection.Reason != want.reason:
			return "reason " + string(rejection.Reason) + " (" + rejection.Detail + "), want " + string(want.reason)
		case rejection.EventID != want.id:
			return "event id " + rejection.EventID + ", want " + want.id
		case rejection.Detail == "" || len(rejection.Detail) > MaxDetail || !utf8.ValidString(rejection.Detail):
			return "bad detail " + strconv.Quote(rejection.Detail)
		case event.ID() != nil || event.Wire != nil:
			return "an event besides the rejection"
		}
		return ""
	}
	var got gateway.Event
	if err := proto.Unmarshal(event.Wire, &got); err != nil {
		return "wire bytes: " + err.Error()
	}
	text := string(event.ID())
	id, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	switch {
	case want.reason != "":
		return "accepted, want " + string(want.reason)
	case err != nil || !bytes.Equal(id, event.UUID[:]) || text != want.id || got.GetId() != want.id:
		return "id " + text + ", want " + want.id
	case event.Publisher != want.publisher:
		return "publisher " + event.Publisher.ServiceID + "/" + event.Publisher.Environment
	case !proto.Equal(&got, want.event):
		return "event\n" + got.String() + "\nwant\n" + want.event.String()
	case len(event.Wire) != proto.Size(want.event):
		return "wire of " + strconv.Itoa(len(event.Wire)) + " bytes, want " + strconv.Itoa(proto.Size(want.event))
	case cap(event.Wire) != len(event.Wire):
		return "wire with capacity to spare"
	}
	return ""
}
