package secrets

import (
	"encoding/base64"
	"strings"
	"testing"
)

func TestSecretsAreMasked(t *testing.T) {
	const known = "s3cr&t/+="
	for _, c := range []struct{ text, want string }{
		{"the gateway is down", "the gateway is down"},
		{"token sams_at_AbC.dEf-9 refused", "token [secret] refused"},
		{`{"access_token":"x","n":1}`, `{"access_token":"[secret]","n":1}`},
		{`{\"access_token\":\"opaque\"}`, `{\"access_token\":\"[secret]\"}`},
		{"Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer [secret]"},
		{"authorization: basic aWQ6c2VjcmV0LXNlY3JldA==, next", "authorization: basic [secret], next"},
		{"no bearer token was sent", "no bearer token was sent"},
		{"ya29.a0Af and eyJhbGciOi.eyJzdWIi.c2ln", "[secret] and [secret]"},
		{"dial http://user:pass@proxy:3128", "dial http://[secret]@proxy:3128"},
		{"client_secret=hunter2&scope=a", "client_secret=[secret]&scope=a"},
		{"raw " + known + " there", "raw [secret] there"},
		{"escaped s3cr%26t%2F%2B%3D there", "escaped [secret] there"},
		{"base64 " + base64.StdEncoding.EncodeToString([]byte(known)) + " there", "base64 [secret] there"},
	} {
		if got := Mask(c.text, known, "", "abc"); got != c.want {
			t.Errorf("%s: got %s, want %s", c.text, got, c.want)
		}
	}
	header := "aWQ6" + base64.StdEncoding.EncodeToString([]byte("x"))
	if got := Mask(header, Basic("id", "other")); got != header {
		t.Errorf("got %s", got)
	}
	basic := Basic("id", known)
	if got := Mask("sent "+basic, basic); strings.Contains(got, basic) {
		t.Errorf("got %s", got)
	}
}
