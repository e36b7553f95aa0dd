package policy

import "testing"

func digestOf(t *testing.T, allowUnknown bool, services ...*Service) string {
	t.Helper()
	set, err := NewSet(services, allowUnknown)
	if err != nil {
		t.Fatal(err)
	}
	return set.Digest()
}

// TestDigest: the digest changes with each rule, and with nothing else.
func TestDigest(t *testing.T) {
	a := &Service{ID: "a", Environments: []string{"dev", "prod"}, Features: []string{"x.*", "y"}}
	b := &Service{ID: "b", PrivateMetadata: DropPrivate}
	want := digestOf(t, false, a, b)
	// The value is in dead-lettered messages, so it must not change from version to version.
	if want != "a03919938fae" {
		t.Errorf("the digest is %s", want)
	}
	for name, got := range map[string]string{
		"order of services":     digestOf(t, false, b, a),
		"order of environments": digestOf(t, false, &Service{ID: "a", Environments: []string{"prod", "dev", "dev"}, Features: []string{"y", "x.*"}}, b),
		"owner and runbook":     digestOf(t, false, a, &Service{ID: "b", PrivateMetadata: DropPrivate, Owner: "o", Runbook: "https://r"}),
	} {
		if got != want {
			t.Errorf("%s changes the digest", name)
		}
	}
	for name, got := range map[string]string{
		"another service":     digestOf(t, false, a, b, &Service{ID: "c"}),
		"another environment": digestOf(t, false, &Service{ID: "a", Environments: []string{"dev"}, Features: a.Features}, b),
		"another feature":     digestOf(t, false, &Service{ID: "a", Environments: a.Environments, Features: []string{"x.*"}}, b),
		"private metadata":    digestOf(t, false, a, &Service{ID: "b", PrivateMetadata: RejectPrivate}),
		"unknown services":    digestOf(t, true, a, b),
		"nothing":             digestOf(t, false),
	} {
		if got == want || len(got) != 12 {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestDigestCoversCatalogue: the digest changes with each part of a catalogue that decides
// about an event, and with no other part.
func TestDigestCoversCatalogue(t *testing.T) {
	chat := EventName{"cody.chat", "sent"}
	with := func(private PrivateMetadata, reject bool, c Catalogue) string {
		return digestOf(t, false, &Service{ID: "a", PrivateMetadata: private, Catalogue: c, RejectUnlisted: reject})
	}
	one := Catalogue{chat: {Metadata: map[string]bool{"tier": true}, Private: map[string]bool{"prompt": true, "editor": true}}}
	digests := map[string]string{}
	for name, digest := range map[string]string{
		"no catalogue, drop":     digestOf(t, false, &Service{ID: "a", PrivateMetadata: DropPrivate}),
		"no catalogue, reject":   digestOf(t, false, &Service{ID: "a", PrivateMetadata: RejectPrivate}),
		"drop":                   with(DropPrivate, false, one),
		"reject":                 with(RejectPrivate, false, one),
		"events, too":            with(DropPrivate, true, one),
		"events only":            with(AllowPrivate, true, one),
		"another private field":  with(DropPrivate, false, Catalogue{chat: {Private: map[string]bool{"prompt": true}}}),
		"a key as private field": with(DropPrivate, false, Catalogue{chat: {Private: map[string]bool{"tier": true}}}),
		"another key":            with(DropPrivate, true, Catalogue{chat: {Metadata: map[string]bool{"teir": true}, Private: one[chat].Private}}),
		"another action":         with(DropPrivate, true, Catalogue{{"cody.chat", "seen"}: one[chat]}),
		"one more event":         with(DropPrivate, true, Catalogue{chat: one[chat], {"cody.chat", "seen"}: {}}),
	} {
		if other, same := digests[digest]; same {
			t.Errorf("%q and %q have the same digest", name, other)
		}
		digests[digest] = name
	}
	for name, pair := range map[string][2]string{
		"an event without private fields": {with(DropPrivate, false, one), with(DropPrivate, false, Catalogue{chat: one[chat], {"cody.chat", "seen"}: {}})},
		"private fields that all pass":    {with(AllowPrivate, true, one), with(AllowPrivate, true, Catalogue{chat: {Metadata: one[chat].Metadata}})},
		"nothing listed":                  {with(DropPrivate, false, Catalogue{}), digestOf(t, false, &Service{ID: "a", PrivateMetadata: DropPrivate})},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s changes the digest", name)
		}
	}
}
