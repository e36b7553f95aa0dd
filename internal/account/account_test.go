package account

import (
	"context"
	"encoding/base64"
	"errors"
	"testing"

	"cloud.google.com/go/auth"
)

func TestNameOf(t *testing.T) {
	token := func(claims string) *auth.Token {
		id := "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
		return &auth.Token{Value: "x", Metadata: map[string]any{"id_token": id}}
	}
	for name, c := range map[string]struct {
		file  string
		token *auth.Token
		want  string
	}{
		"service account":   {`{"type":"service_account","client_email":"relay@p.iam.gserviceaccount.com"}`, nil, "relay@p.iam.gserviceaccount.com"},
		"impersonated":      {`{"type":"impersonated_service_account","service_account_impersonation_url":"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/oncall@p.iam.gserviceaccount.com:generateAccessToken"}`, nil, "oncall@p.iam.gserviceaccount.com"},
		"workload identity": {`{"type":"external_account","audience":"//iam.googleapis.com/x"}`, nil, Unknown},
		"user":              {`{"type":"authorized_user","account":"made-up@example.com"}`, token(`{"email":"kim@example.com"}`), "kim@example.com"},
		"user without name": {`{"type":"authorized_user","account":"made-up@example.com"}`, &auth.Token{Value: "x"}, Unknown},
		"user, no answer":   {`{"type":"authorized_user"}`, nil, Unknown},
		"no file":           {`nonsense`, nil, Unknown},
		"another type":      {`{"type":"gdch_service_account","client_email":"x"}`, nil, Unknown},
	} {
		got := nameOf(t.Context(), []byte(c.file), func(context.Context) (*auth.Token, error) {
			if c.token == nil {
				return nil, errors.New("no answer")
			}
			return c.token, nil
		})
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
