// Package secrets masks credentials in texts that are logged or shown.
package secrets

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Mark replaces a secret.
const Mark = "[secret]"

// forms are patterns of credentials, and their replacements.
var forms = []struct {
	find *regexp.Regexp
	with string
}{
	// Access tokens of SAMS and of Google, and JSON Web Tokens.
	{regexp.MustCompile(`sams_[a-z]+_[A-Za-z0-9._~+/=-]+`), Mark},
	{regexp.MustCompile(`ya29\.[A-Za-z0-9._~+/=-]+`), Mark},
	{regexp.MustCompile(`eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`), Mark},
	// HTTP authentication.
	{regexp.MustCompile(`(?i)\b((?:bearer|basic)[ :]+)[A-Za-z0-9._~+/=-]{12,}`), "${1}" + Mark},
	{regexp.MustCompile(`(?i)((?:access_token|refresh_token|client_secret|password)\\?"?\s*[=:]\s*\\?"?)[^"\s,;&}\\]+`), "${1}" + Mark},
	// The user part of a URL.
	{regexp.MustCompile(`(://)[^/@\s"]+@`), "${1}" + Mark + "@"},
}

// Mask returns the text without anything that looks like a credential, and without
// the known secrets in the forms in which they travel: as they are, escaped for
// a URL, and in base64. Mask ignores a known secret of less than four bytes, because it
// would match ordinary text.
func Mask(text string, known ...string) string {
	for _, secret := range known {
		for _, form := range traveling(secret) {
			text = strings.ReplaceAll(text, form, Mark)
		}
	}
	for _, form := range forms {
		text = form.find.ReplaceAllString(text, form.with)
	}
	return text
}

// minSecret is the length of the shortest secret that Mask looks for, in bytes.
const minSecret = 4

// traveling returns the forms of a secret, the longest first.
func traveling(secret string) []string {
	if len(secret) < minSecret {
		return nil
	}
	all := []string{secret, url.QueryEscape(secret), url.PathEscape(secret)}
	for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		all = append(all, e.EncodeToString([]byte(secret)))
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(all)
}

// Basic returns what HTTP's basic authentication makes of a client's credentials,
// as golang.org/x/oauth2 sends them.
func Basic(id, secret string) string {
	return base64.RawStdEncoding.EncodeToString([]byte(url.QueryEscape(id) + ":" + url.QueryEscape(secret)))
}
