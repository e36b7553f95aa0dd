package event

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

var timestampTests = []struct {
	text    string
	seconds int64
	nanos   int32
	ok      bool
}{
	{"1970-01-01T00:00:00Z", 0, 0, true},
	{"2026-11-20T10:13:26.4Z", 1795169606, 400000000, true},
	{"2026-11-20T10:13:26.123456789Z", 1795169606, 123456789, true},
	{"2026-11-20T12:43:26+02:30", 1795169606, 0, true},
	{"2026-11-20T10:13:26-00:00", 1795169606, 0, true},
	{"2026-11-19T10:14:26.000000001-23:59", 1795169606, 1, true},
	{"2024-02-29T00:00:00Z", 1709164800, 0, true},
	{"2000-02-29T23:59:59Z", 951868799, 0, true},
	{"1969-12-31T23:59:59.5Z", -1, 500000000, true},
	{"0001-01-01T00:00:00Z", minSeconds, 0, true},
	{"0000-12-31T23:59:00-00:01", minSeconds, 0, true},
	{"9999-12-31T23:59:59.999999999Z", maxSeconds, 999999999, true},
	{text: "0001-01-01T00:00:00+00:01"},
	{text: "0000-12-31T23:59:59Z"},
	{text: "9999-12-31T23:59:59-00:01"},
	{text: "2026-11-20T10:13:26.1234567890Z"},
	{text: "2026-11-20T10:13:26.Z"},
	{text: "2026-11-20T10:13:26,4Z"},
	{text: "2026-11-20t10:13:26Z"},
	{text: "2026-11-20T10:13:26z"},
	{text: "2026-11-20 10:13:26Z"},
	{text: "2026-11-20T10:13:26"},
	{text: "2026-11-20T10:13:26+0230"},
	{text: "2026-11-20T10:13:26+02"},
	{text: "2026-11-20T10:13:26+24:00"},
	{text: "2026-11-20T10:13:26+23:60"},
	{text: "2026-11-20T10:13:26Z "},
	{text: "2026-11-20T10:13:26ZZ"},
	{text: "2026-11-20T1:13:26Z00"},
	{text: "2026-11-20T24:00:00Z"},
	{text: "2026-11-20T10:60:00Z"},
	{text: "2016-12-31T23:59:60Z"},
	{text: "2026-00-20T10:13:26Z"},
	{text: "2026-13-20T10:13:26Z"},
	{text: "2026-11-00T10:13:26Z"},
	{text: "2026-11-31T10:13:26Z"},
	{text: "2025-02-29T10:13:26Z"},
	{text: "1900-02-29T10:13:26Z"},
	{text: "+026-11-20T10:13:26Z"},
	{text: "2026-11-20T10:13:26.-1Z"},
	{text: "20261-11-20T10:13:26Z"},
	{text: "2026-11-20T10:13:26.4"},
	{text: ""},
}

func TestTimestampsAreParsed(t *testing.T) {
	for _, test := range timestampTests {
		at, ok := parseInstant([]byte(test.text))
		if ok != test.ok || ok && at != (instant{test.seconds, test.nanos}) {
			t.Errorf("parseInstant(%q) = %v, %v; want %v", test.text, at, ok, test)
		}
	}
}

// TestTimestampAllDays compares every day with time.Parse.
func TestTimestampAllDays(t *testing.T) {
	for _, year := range []int{0, 1, 4, 100, 400, 1600, 1900, 1969, 1970, 1972, 2000, 2026, 2100, 9999} {
		for month := range 14 {
			for day := range 33 {
				s := fmt.Sprintf("%04d-%02d-%02dT23:59:59Z", year, month, day)
				got, ok := parseInstant([]byte(s))
				want, wantOK := refParseTime(s)
				if ok != wantOK || ok && got.seconds != want.Unix() {
					t.Fatalf("parseInstant(%q) = %v, %v; want %v, %v", s, got, ok, want.Unix(), wantOK)
				}
			}
		}
	}
}

// TestDeriveID has vectors computed with Python's hashlib and uuid. They must never change,
// because a redelivered event must keep its id.
func TestDeriveID(t *testing.T) {
	for _, test := range []struct {
		published time.Time
		messageID string
		want      string
	}{
		{time.Date(2026, 11, 20, 9, 0, 43, 200999000, time.UTC), "11122233344455", "01a1f82f-c740-724b-a10f-4a6512d84dbe"},
		{time.Date(2026, 11, 20, 10, 0, 43, 200000000, time.FixedZone("", 3600)), "1", "01a1f82f-c740-7b86-b273-ff34fce19d6b"},
		{time.Unix(0, 0), "", "00000000-0000-73b0-8442-98fc1c149afb"},
		{time.Unix(-1, 999000000), "a", "ffffffff-ffff-7a97-8112-ca1bbdcafac2"},
		{time.Unix(-1, 999500000), "a", "ffffffff-ffff-7a97-8112-ca1bbdcafac2"},
		{time.Time{}, "b", "c77cedd3-2800-7e23-a816-0039594a3389"},
		{time.Unix(maxSeconds, 999999999), strings.Repeat("é", 50), "e677d21f-dbff-7d18-be4b-61f0113952aa"},
	} {
		id := deriveID(test.published, test.messageID)
		if got := uuid.UUID(id).String(); got != test.want {
			t.Errorf("deriveID(%v, %q) = %s, want %s", test.published, test.messageID, got, test.want)
		}
		if parsed, ok := parseID([]byte(test.want)); !ok || parsed != id {
			t.Errorf("parseID(%s) = %x, %v", test.want, parsed, ok)
		}
	}
}

func TestParseDouble(t *testing.T) {
	check := func(s string) {
		t.Helper()
		got, ok := parseDouble([]byte(s))
		want, err := strconv.ParseFloat(s, 64)
		if ok != (err == nil) || ok && math.Float64bits(got) != math.Float64bits(want) {
			t.Errorf("parseDouble(%s) = %v, %v; want %v", s, got, ok, want)
		}
	}
	for _, s := range []string{
		"0", "-0", "-0.0", "1", "-1", "0.1", "0.3", "1.000000000000001", "999999999999999", "9999999999999999",
		"9007199254740993", "123456789.123456789", "1e400", "-1e400", "1e-400", "1.7976931348623157e308",
		"1.7976931348623159e308", "5e-324", "1E+2", "0.000000000000001", "100000000000000000000000", "0.9538",
	} {
		check(s)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		check(strconv.FormatFloat(math.Float64frombits(random.Uint64()&^(1<<62)), "gef"[random.IntN(3)], random.IntN(18), 64))
		check(strconv.FormatFloat(random.Float64()*1000-500, 'f', random.IntN(14), 64))
	}
}

func TestValidName(t *testing.T) {
	check := func(s string) {
		t.Helper()
		if got, want := validName([]byte(s)), len(s) <= 64 && refName.MatchString(s); got != want {
			t.Errorf("validName(%q) = %v", s, got)
		}
	}
	for c := range 256 {
		check(string([]byte{byte(c), 'a'}))
		check(string([]byte{'a', byte(c)}))
	}
	for _, s := range []string{"", "a", "ab", "cody.chat-question", "a.", "a-", strings.Repeat("a", 64), strings.Repeat("a", 65), "ab\n"} {
		check(s)
	}
}

func TestHexDigits(t *testing.T) {
	for c := range 256 {
		want, err := strconv.ParseUint(string([]byte{byte(c)}), 16, 8)
		if err != nil {
			want = 255
		}
		if hexDigits[c] != byte(want) {
			t.Errorf("hexDigits[%q] = %d, want %d", rune(c), hexDigits[c], want)
		}
	}
}

func TestTraceparentsAreParsed(t *testing.T) {
	const parent = "0123456789abcdef"
	for _, test := range []struct{ value, want string }{
		{"00-" + testTrace + "-" + parent + "-01", testTrace},
		{"00-" + testTrace + "-" + parent + "-ff", testTrace},
		{"cc-" + testTrace + "-" + parent + "-01", testTrace},
		{"cc-" + testTrace + "-" + parent + "-01-what-ever", testTrace},
		{"cc-" + testTrace + "-" + parent + "-01x", ""},
		{"00-" + testTrace + "-" + parent + "-01-what", ""},
		{"ff-" + testTrace + "-" + parent + "-01", ""},
		{"00-" + strings.ToUpper(testTrace) + "-" + parent + "-01", ""},
		{"00-" + strings.Repeat("0", 32) + "-" + parent + "-01", ""},
		{"00-" + testTrace + "-" + strings.Repeat("0", 16) + "-01", ""},
		{"00-" + testTrace + "-" + parent + "-0", ""},
		{"00-" + testTrace + "-" + parent + "-0g", ""},
		{"0x-" + testTrace + "-" + parent + "-01", ""},
		{"00_" + testTrace + "-" + parent + "-01", ""},
		{" 00-" + testTrace + "-" + parent + "-01", ""},
		{"", ""},
	} {
		if got := traceparentID(test.value); got != test.want {
			t.Errorf("traceparentID(%q) = %q, want %q", test.value, got, test.want)
		}
		if got := refTraceID(test.value); got != test.want {
			t.Errorf("refTraceID(%q) = %q, want %q", test.value, got, test.want)
		}
	}
}

func TestReplayCountsAreParsed(t *testing.T) {
	for value, want := range map[string]int{
		"": 0, "0": 0, "1": 1, "12": 12, "01": 0, "+1": 0, "-1": 0, "1.0": 0, "1e2": 0, " 1": 0, "1 ": 0, "１": 0,
		"9223372036854775807": math.MaxInt64, "9223372036854775808": 0,
	} {
		if got := Replays(map[string]string{"replay_count": value}); got != want {
			t.Errorf("Replays(%q) = %d, want %d", value, got, want)
		}
	}
	if got := Replays(nil); got != 0 {
		t.Errorf("Replays(nil) = %d", got)
	}
}

func TestSimilarNamesAreSuggested(t *testing.T) {
	for key, want := range map[string]string{
		"Feature": "feature", "featur": "feature", "featuure": "feature", "feautre": "feature", "fwature": "feature",
		"private_metadata": "privateMetadata", "metaData": "metadata", "users": "user", "fea": "", "": "", "source": "",
		strings.Repeat("x", 10_000): "",
	} {
		if got := similar([]byte(key), topNames); got != want {
			t.Errorf("similar(%.80q) = %q, want %q", key, got, want)
		}
	}
}

func TestQuotesArePlainASCII(t *testing.T) {
	for value, want := range map[string]string{
		"":                                  `""`,
		"a\"\n\x00\xff":                     `"a\"\n\x00\xff"`,
		"é\U0001F600":                       `"\u00e9\U0001f600"`,
		strings.Repeat("a", 80):             `"` + strings.Repeat("a", 80) + `"`,
		strings.Repeat("a", 81):             `"` + strings.Repeat("a", 80) + `"...`,
		strings.Repeat("a", 79) + "é":       `"` + strings.Repeat("a", 79) + `"...`,
		strings.Repeat("\x80", 200):         `""...`,
		strings.Repeat("\U0001F600", 1_000): `"` + strings.Repeat(`\U0001f600`, 20) + `"...`,
	} {
		if got := quote(value); got != want {
			t.Errorf("quote(%q) = %s, want %s", value, got, want)
		}
		if got := quote([]byte(value)); got != want {
			t.Errorf("quote of bytes %q = %s, want %s", value, got, want)
		}
	}
	for _, long := range []string{strings.Repeat("é", 600), strings.Repeat("\xff", 2000), "x" + strings.Repeat("é", 600)} {
		if got := limit(long); len(got) > MaxDetail || !utf8.ValidString(got) {
			t.Errorf("limit(%q) = %q", long, got)
		}
	}
}
