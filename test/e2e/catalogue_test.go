package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// TestCatalogueDropsAndRejects: a worker drops or rejects whatever the catalogue of a
// service does not list, from a file or from a variable, and `publish --check` reports
// the same.
func TestCatalogueDropsAndRejects(t *testing.T) {
	const (
		secret = "pr1vate-mark"
		list   = "unknownServices: reject\nservices:\n" +
			"- {id: sams, privateMetadata: reject, unlisted: reject, CATALOGUE}\n" +
			"- {id: dropper, privateMetadata: drop, events: [{feature: cody.chat, action: sent, privateMetadata: {prompt}}]}\n"
		inline = "events: [{feature: cody.chat, action: sent, metadata: {tier}, privateMetadata: {prompt}}]"
		file   = "service: sams\nowner: core-services\nevents:\n" +
			"- {feature: cody.chat, action: sent, description: Sent., metadata: {tier: plan}, privateMetadata: {prompt: of the user}}\n"
	)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"services.yaml": strings.Replace(list, "CATALOGUE", "catalogue: sams/telemetry.yaml", 1), "sams/telemetry.yaml": file,
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	digests := map[string]bool{}
	t.Cleanup(func() { // when the parallel runs have ended
		if len(digests) != 1 || digests[""] {
			t.Errorf("the digests of lists that decide the same are %v", digests)
		}
	})
	for name, vars := range map[string][]string{
		"file":     {"WORKER_SERVICES=", "WORKER_SERVICES_FILE=" + filepath.Join(dir, "services.yaml")},
		"variable": {"WORKER_SERVICES=" + strings.Replace(list, "CATALOGUE", inline, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			h := newEnv(t)
			good := []*pubsubpb.PubsubMessage{
				named(with(`"id":"`+eventID(0)+`","metadata":{"tier":1},"privateMetadata":{"prompt":{"text":"listed"}}`), "service_id", "sams"),
				named(with(`"id":"`+eventID(1)+`","metadata":{"other":1},"privateMetadata":{"`+secret+`":1,"prompt":"listed","other":"`+secret+`"}`), "service_id", "dropper"),
				named(`{"privateMetadata":{"prompt":"`+secret+`"},"id":"`+eventID(2)+`","feature":"cody.hover","action":"seen"}`, "service_id", "dropper"),
			}
			bad := map[string]*pubsubpb.PubsubMessage{
				"privateMetadata: the field at byte offset 71 (the first is 0) is not listed; the catalogue allows \"prompt\"": named(with(`"privateMetadata":{"prompt":"x","`+secret+`":1}`), "service_id", "sams"),
				"metadata.teir: the catalogue allows \"tier\"":                                                                 named(with(`"metadata":{"teir":1}`), "service_id", "sams"),
				"action: the catalogue does not list \"seen\" of \"cody.chat\"":                                                named(`{"feature":"cody.chat","action":"seen"}`, "service_id", "sams"),
				"action: the catalogue does not list \"sent\" of \"cody.chat-more\"":                                           named(`{"action":"sent","feature":"cody.chat-more"}`, "service_id", "sams"),
			}
			h.publish(good...)
			details := map[string]bool{}
			for detail, m := range bad {
				h.publish(m)
				details[detail] = true
				line := `{"attributes":{"service_id":"sams"},"data":` + string(m.GetData()) + `}`
				check := execute(t, h.environ(vars...), strings.NewReader(line), "publish", "--check").exits(1)
				contains(t, check.stderr, "policy_violation: "+detail)
			}
			ran := h.run(vars...).exits(0)
			ran.sums(summary{
				Received: 7, Submitted: 3, Rejected: map[string]int{"policy_violation": 4}, Ended: "drained",
			})
			private := map[string]string{}
			for _, r := range h.gateway.Recorded() {
				private[r.Event.GetId()] = ""
				if p := r.Event.GetParameters().GetPrivateMetadata(); p != nil {
					text, err := p.MarshalJSON()
					h.must(err)
					private[r.Event.GetId()] = strings.ReplaceAll(string(text), " ", "")
				}
			}
			want := map[string]string{eventID(0): `{"prompt":{"text":"listed"}}`, eventID(1): `{"prompt":"listed"}`, eventID(2): ""}
			for id, text := range want {
				if got, ok := private[id]; !ok || got != text {
					t.Errorf("the private metadata of %s is %q, want %q", id, got, text)
				}
			}
			for _, l := range h.deadLetters(len(bad)) {
				detail := l.DLQ["dlq_detail"]
				if l.DLQ["dlq_reason"] != "policy_violation" || !details[detail] {
					t.Errorf("%s: %s", l.DLQ["dlq_reason"], detail)
				}
				delete(details, detail)
				mu.Lock()
				digests[l.DLQ["dlq_services_digest"]] = true
				mu.Unlock()
			}
			if strings.Contains(ran.stderr+ran.stdout, secret) {
				t.Error("a private field is in the log")
			}
		})
	}
}
