package dlqui

import (
	"net/url"
	"strings"
	"testing"
)

func TestFormOfApplyBecomesFlags(t *testing.T) {
	for form, want := range map[string]string{
		"":                                     "",
		"canary=5&rate=0&stop-after=10":        "",
		"canary=0&rate=1%2C000&stop-after=1_0": "--canary 0 --rate 1000",
		"canary-wait=+20m+&services-anyway=1":  "--canary-wait 20m --services-anyway",
	} {
		values, err := url.ParseQuery(form)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := applyArgs(values); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v, %v; want %s", form, got, err, want)
		}
	}
}

func TestWrongFieldsOfAFormAreAllNamed(t *testing.T) {
	_, err := applyArgs(url.Values{"canary": {"many"}, "rate": {"-1"}, "stop-after": {"1.5"}, "canary-wait": {"-1m"}})
	for _, name := range []string{"canary: ", "rate: ", "stop-after: ", "canary-wait: "} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
}

func TestNumberOfMessagesConfirmsAnAction(t *testing.T) {
	for typed, ok := range map[string]bool{"1234": true, " 1,234 ": true, "1_234": true, "1 234": true, "": false, "0": false, "1233": false, "all": false, "-1": false} {
		if err := confirmed(url.Values{"count": {typed}}, 1234); (err == nil) != ok {
			t.Errorf("%q: %v", typed, err)
		}
	}
}
