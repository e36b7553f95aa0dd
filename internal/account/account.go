// Package account names the Google Cloud account of the default credentials, for audit
// records.
package account

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strings"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/compute/metadata"
)

// Unknown is the name for credentials without an account name.
const Unknown = "unknown"

// patience bounds Name, so that a slow metadata server does not delay a command.
const patience = 5 * time.Second

// scopes are the scopes of `gcloud auth application-default login` that name the user.
var scopes = []string{"openid", "https://www.googleapis.com/auth/userinfo.email", "https://www.googleapis.com/auth/cloud-platform"}

// Name returns the account of the default credentials, or Unknown. It trusts the
// credentials alone, because anyone can change a variable or a setting.
func Name(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := credentials.DetectDefault(&credentials.DetectOptions{Scopes: scopes})
	if err != nil {
		return Unknown
	}
	return nameOf(ctx, c.JSON(), c.Token)
}

// impersonated is the account in the address that gives its tokens.
var impersonated = regexp.MustCompile(`/serviceAccounts/([^/:]+):generateAccessToken$`)

// nameOf reads the account from credentials in their file's form; nil stands for
// the machine's own.
func nameOf(ctx context.Context, file []byte, token func(context.Context) (*auth.Token, error)) string {
	if file == nil {
		email, err := metadata.EmailWithContext(ctx, "default")
		return known(email, err)
	}
	var c struct {
		Type        string `json:"type"`
		ClientEmail string `json:"client_email"`
		Impersonate string `json:"service_account_impersonation_url"`
	}
	if json.Unmarshal(file, &c) != nil {
		return Unknown
	}
	switch c.Type {
	case "service_account": // Google takes its signature for no other name
		return known(c.ClientEmail, nil)
	case "impersonated_service_account", "external_account":
		if m := impersonated.FindStringSubmatch(c.Impersonate); m != nil {
			return m[1]
		}
	case "authorized_user": // the user can edit the file, but not Google's answer
		t, err := token(ctx)
		if err != nil {
			return Unknown
		}
		return known(emailOf(t.MetadataString("id_token")), nil)
	}
	return Unknown
}

func known(email string, err error) string {
	if err != nil || email == "" {
		return Unknown
	}
	return email
}

// emailOf returns the address in an identity token. It does not check the signature,
// because the token came from Google over TLS.
func emailOf(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		Email string `json:"email"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	return claims.Email
}
