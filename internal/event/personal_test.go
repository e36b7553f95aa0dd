package event

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// TestDetailIsNotPersonal puts an address wherever a publisher can write one. A detail is
// logged and shown to many people, so it must describe the address without repeating it.
func TestDetailIsNotPersonal(t *testing.T) {
	const address = "alice.smith@example.com"
	services, err := policy.NewSet([]*policy.Service{{ID: "sams", Environments: []string{"dev"}}}, false)
	if err != nil {
		t.Fatal(err)
	}
	d := NewDecoder(services, "dev")
	field := func(more string) string { return `{"feature":"a.b","action":"cd",` + more + `}` }
	for name, c := range map[string]struct {
		data       string
		attributes map[string]string
	}{
		"id":               {field(`"id":"` + address + `"`), nil},
		"timestamp":        {field(`"timestamp":"` + address + `"`), nil},
		"feature":          {`{"feature":"` + address + `","action":"cd"}`, nil},
		"action":           {`{"feature":"a.b","action":"` + address + `"}`, nil},
		"key of metadata":  {field(`"metadata":{"` + address + `":"x"}`), nil},
		"key twice":        {field(`"metadata":{"` + address + `":1,"` + address + `":1}`), nil},
		"key of flags":     {field(`"featureFlags":{"` + address + `":1}`), nil},
		"large number":     {field(`"metadata":{"` + address + `":1e999}`), nil},
		"unknown field":    {field(`"` + address + `":1`), nil},
		"in user":          {field(`"user":{"` + address + `":1}`), nil},
		"key of private":   {field(`"privateMetadata":{"` + address + `":1,"` + address + `":1}`), nil},
		"value of private": {field(`"privateMetadata":"` + address + `"`), nil},
		"schema":           {"{}", map[string]string{"schema_version": address}},
		"service":          {"{}", map[string]string{"service_id": address}},
		"environment":      {field(`"metadata":{}`), map[string]string{"service_environment": address}},
	} {
		attributes := map[string]string{"service_id": "sams"}
		maps.Copy(attributes, c.attributes)
		_, rejection := d.Decode(Message{ID: "1", PublishTime: time.Now(), Data: []byte(c.data), Attributes: attributes})
		if rejection == nil {
			t.Errorf("%s: it is taken", name)
			continue
		}
		if all := rejection.Error() + rejection.EventID; strings.Contains(all, "alice") || strings.Contains(all, "example") {
			t.Errorf("%s: %s", name, all)
		}
	}
}

// TestDetailNamesTheEncoding has JSON in other encodings than UTF-8.
func TestDetailNamesTheEncoding(t *testing.T) {
	services, err := policy.NewSet(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	for data, want := range map[string]string{"\xff\xfe{\x00}\x00": "UTF-16", "\x1f\x8b\x08": "gzip", "\ufeff{}": "byte order mark"} {
		_, rejection := NewDecoder(services, "dev").Decode(Message{Data: []byte(data), Attributes: map[string]string{"service_id": "sams"}})
		if rejection == nil || rejection.Reason != MalformedPayload || !strings.Contains(rejection.Detail, want) {
			t.Errorf("%q: %v", data, rejection)
		}
	}
}
