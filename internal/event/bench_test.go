package event

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
	"github.com/sourcegraph/telemetry-relay/internal/race"
)

const typicalEvent = `{"feature":"cody.webview.request","action":"certError","id":"01a1f872-5b00-7578-ad5d-325956f1dfc7","timestamp":"2026-11-20T10:13:26.400Z","metadata":{"tier":-1,"durationMs":3918},"user":{"anonymousUserId":"455d46ae-e8bd-4c11-881d-1a76da064151"},"client":{"name":"VSCode.Cody","version":"1.84.0"},"interaction":{"traceId":"1386b39c59355d4cc09710021d13be3c"}}`

const privateEvent = `{"feature":"cody.chat-question","action":"executed","id":"01a1f872-5b00-7578-ad5d-325956f1dfc7","timestamp":"2026-11-20T10:13:26.400Z","metadata":{"tier":-1,"durationMs":3918,"charCount":0.2837,"recordsPrivateMetadataTranscript":1},"metadataVersion":2,"privateMetadata":{"promptText":"Explain the function \"parse\" in\n\tmain.go, please; why does it allocate?","languages":["go","typescript","python"],"editor":{"name":"vscode","remote":true,"wsl":false,"uri":null},"repository":{"name":"github.com/sourcegraph/sourcegraph","branch":"main","files":[{"path":"lib/a.go","lines":120},{"path":"lib/b.go","lines":77.5}]}},"billingMetadata":{"product":"cody","category":"billable"},"user":{"samsExternalId":"f0bbe9cf-42f2-4c05-873f-9bd066080f17","userId":9007199254740993},"client":{"name":"VSCode.Cody","version":"1.84.0"},"interaction":{"traceId":"1386b39c59355d4cc09710021d13be3c","interactionId":"1dfc8488-49df-4451-b908-7c65618f3a8e","countryCode":"CN"},"featureFlags":{"cody-autocomplete-tracing":"true","edit-model":"control"}}`

func benchDecoder(tb testing.TB) *Decoder {
	services, err := policy.NewSet([]*policy.Service{{ID: "cody-gateway"}}, false)
	if err != nil {
		tb.Fatal(err)
	}
	return NewDecoder(services, "dev")
}

func benchMessage(data string) Message {
	return Message{
		ID: "11122233344455", PublishTime: time.Date(2026, 11, 20, 10, 13, 27, 0, time.UTC), Data: []byte(data),
		Attributes: map[string]string{
			"service_id": "cody-gateway", "service_environment": "prod", "service_version": "2026.46.1",
		},
	}
}

func BenchmarkDecode(b *testing.B) {
	const derived = `{"feature":"cody.webview.request","action":"certError","metadata":{"tier":-1}}`
	for _, bench := range []struct{ name, data string }{
		{"typical", typicalEvent}, {"private", privateEvent}, {"derived", derived},
	} {
		m := benchMessage(bench.data)
		d := benchDecoder(b)
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(m.Data)))
			for b.Loop() {
				if _, rejection := d.Decode(m); rejection != nil {
					b.Fatal(rejection)
				}
			}
		})
		b.Run(bench.name+"/into", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(m.Data)))
			var buf []byte
			for b.Loop() {
				var rejection *Rejection
				if _, buf, rejection = d.DecodeInto(buf[:0], m); rejection != nil {
					b.Fatal(rejection)
				}
			}
		})
	}
}

// manyValues are events of a few megabytes that consist of the smallest possible values.
func manyValues() map[string]string {
	list := func(n int, value string) string {
		return with(`"privateMetadata":{"a":[` + strings.Repeat(value+",", n-1) + value + `]}`)
	}
	return map[string]string{
		"objects": list(900_000, "{}"), "arrays": list(900_000, "[]"), "nulls": list(700_000, "null"), "numbers": list(370_000, "1"), "texts": list(900_000, `""`),
	}
}

// BenchmarkManyValues decodes manyValues, which includes computing their size in the
// gateway's JSON.
func BenchmarkManyValues(b *testing.B) {
	for name, data := range manyValues() {
		m := benchMessage(data)
		d := benchDecoder(b)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(m.Data)))
			for b.Loop() {
				if _, rejection := d.Decode(m); rejection != nil {
					b.Fatal(rejection)
				}
			}
		})
	}
}

// TestManyValues requires that an event of a million values takes no more memory than a few
// times its own size, and that computing its JSON size takes none.
func TestManyValues(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector counts differently")
	}
	d := benchDecoder(t)
	for name, data := range manyValues() {
		m := benchMessage(data)
		event, rejection := d.Decode(m)
		if rejection != nil {
			t.Fatalf("%s: %v", name, rejection)
		}
		if n := testing.AllocsPerRun(3, func() { jsonSize(event.Wire, event.Publisher) }); n != 0 {
			t.Errorf("%s: measuring allocates %v times", name, n)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		_, _ = d.Decode(m)
		took := time.Since(began)
		runtime.ReadMemStats(&after)
		// Growing a slice leaves its former memory as garbage.
		if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(8*len(event.Wire)); got > limit {
			t.Errorf("%s: decoding allocates %d bytes, want at most %d for %d on the wire", name, got, limit, len(event.Wire))
		}
		t.Logf("%s: %d bytes, %d on the wire, %d in JSON, %v", name, len(data), len(event.Wire), jsonSize(event.Wire, event.Publisher), took)
	}
}

func TestDecodeAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector empties sync.Pool at random")
	}
	d := benchDecoder(t)
	for name, data := range map[string]string{"typical": typicalEvent, "private": privateEvent} {
		m := benchMessage(data)
		var buf []byte
		for _, test := range []struct {
			name   string
			limit  float64
			decode func()
		}{
			{"Decode", 2, func() { d.Decode(m) }},
			{"DecodeInto", 1, func() { _, buf, _ = d.DecodeInto(buf[:0], m) }},
		} {
			if n := testing.AllocsPerRun(200, test.decode); n > test.limit {
				t.Errorf("%s of the %s event allocates %v times, want at most %v", test.name, name, n, test.limit)
			}
		}
	}
}
