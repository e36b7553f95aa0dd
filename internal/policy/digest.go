package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
)

// digestLength is the length of a digest in hexadecimal digits. It tells the lists of
// one worker apart; it protects nothing.
const digestLength = 12

// rule is the canonical form of a service: everything that decides whether an event
// is rejected, and which private fields are dropped. The order of lists, who owns the
// service, and what a catalogue says of the meaning of a key do not decide. The fields
// of a catalogue are absent without one, so that the digests of such lists stay the same.
type rule struct {
	ID           string          `json:"id"`
	Environments []string        `json:"environments,omitempty"`
	Private      PrivateMetadata `json:"private"`
	Features     []string        `json:"features,omitempty"`
	Unlisted     bool            `json:"rejectUnlisted,omitempty"`
	Allowed      [][]string      `json:"allowed,omitempty"`
}

// Digest identifies what the set allows: the first 12 hexadecimal digits of the
// SHA-256 of its canonical form. Two sets that reject the same events for the same
// rules have the same digest.
func (s *Set) Digest() string {
	rules := make([]rule, 0, len(s.services))
	for _, service := range s.services {
		rules = append(rules, rule{
			ID: service.ID, Environments: canonical(service.Environments), Private: service.PrivateMetadata, Features: canonical(service.Features),
			Unlisted: service.RejectUnlisted, Allowed: service.allowed(),
		})
	}
	slices.SortFunc(rules, func(a, b rule) int { return strings.Compare(a.ID, b.ID) })
	text, err := json.Marshal(struct {
		AllowUnknown bool   `json:"allowUnknown"`
		Services     []rule `json:"services"`
	}{s.allowUnknown, rules})
	if err != nil {
		panic(err) // strings, numbers and booleans always encode
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])[:digestLength]
}

// canonical sorts a list of alternatives and drops repetitions.
func canonical(list []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(list)))
}
