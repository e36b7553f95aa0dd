// Package terraform_test holds the Terraform module against what the worker
// needs. There is no provider here: the module is parsed, evaluated with sample
// inputs, and compared.
package terraform_test

import (
	"bytes"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/provision"
)

func set(members ...string) cty.Value {
	values := make([]cty.Value, len(members))
	for i, m := range members {
		values[i] = cty.StringVal(m)
	}
	return cty.SetVal(values)
}

func inputs() map[string]cty.Value {
	return map[string]cty.Value{
		"project_id":            cty.StringVal("relay-prod"),
		"publishers":            set("serviceAccount:sams@x", "serviceAccount:cody@x"),
		"worker":                cty.StringVal("serviceAccount:relay@x"),
		"oncall":                set("group:oncall@x"),
		"developers":            set("group:dev@x"),
		"auditors":              set("group:audit@x"),
		"allowed_regions":       cty.ListVal([]cty.Value{cty.StringVal("us-central1")}),
		"notification_channels": cty.ListVal([]cty.Value{cty.StringVal("projects/relay-prod/notificationChannels/1")}),
	}
}

const (
	topic        = "google_pubsub_topic"
	subscription = "google_pubsub_subscription"
	alert        = "google_monitoring_alert_policy"
)

func TestFilesAreFormatted(t *testing.T) {
	for path, content := range sources(t) {
		if formatted := hclwrite.Format(content); !bytes.Equal(formatted, content) {
			t.Errorf("terraform fmt would change %s (-is +formatted):\n%s", path, cmp.Diff(string(content), string(formatted)))
		}
	}
	if _, err := exec.LookPath("terraform"); err != nil {
		t.Log("terraform is not installed; its own fmt was not run")
		return
	}
	if out, err := exec.CommandContext(t.Context(), "terraform", "fmt", "-check", "-diff", "-no-color", ".").CombinedOutput(); err != nil {
		t.Errorf("terraform fmt: %v\n%s", err, out)
	}
}

// schema is what this module uses of the provider's (hashicorp/google 6). Names
// with a ! are required.
var schema = map[string]string{
	topic: "name! project labels message_storage_policy.allowed_persistence_regions! lifecycle.prevent_destroy",
	subscription: "name! topic! project labels ack_deadline_seconds message_retention_duration expiration_policy.ttl! " +
		"dead_letter_policy.dead_letter_topic dead_letter_policy.max_delivery_attempts lifecycle.prevent_destroy",
	"google_pubsub_topic_iam_member":        "project topic! role! member!",
	"google_pubsub_subscription_iam_member": "project subscription! role! member!",
	"google_project_iam_member":             "project! role! member!",
	"google_project_iam_custom_role":        "project role_id! title! description permissions!",
	"google_project_iam_audit_config":       "project! service! audit_log_config.log_type! audit_log_config.exempted_members",
	alert: "project display_name! combiner! severity notification_channels conditions.display_name! " +
		"conditions.condition_threshold.filter conditions.condition_threshold.comparison! conditions.condition_threshold.threshold_value " +
		"conditions.condition_threshold.duration! conditions.condition_threshold.aggregations.alignment_period " +
		"conditions.condition_threshold.aggregations.per_series_aligner documentation.mime_type documentation.content",
}

func TestFilesMatchProviderSchema(t *testing.T) {
	m := load(t, inputs())
	for _, i := range m.instances {
		known := strings.Fields(schema[i.kind])
		if len(known) == 0 {
			t.Errorf("%s is not in the schema", i.kind)
		}
		for name, value := range i.args {
			if !slices.Contains(known, name) && !slices.Contains(known, name+"!") {
				t.Errorf("%s.%s: %s takes no argument %s", i.kind, i.name, i.kind, name)
			}
			if !value.IsWhollyKnown() {
				t.Errorf("%s.%s: %s is not known", i.kind, i.name, name)
			}
		}
		for _, name := range known {
			name, required := strings.CutSuffix(name, "!")
			block := name[:max(0, strings.LastIndex(name, "."))]
			if _, ok := i.args[name]; required && !ok && (block == "" || slices.Contains(i.blocks, block)) {
				t.Errorf("%s.%s: %s is required", i.kind, i.name, name)
			}
		}
	}
}

// TestVariablesAreDescribedAndUsed makes sure that each variable is described, typed and used.
func TestVariablesAreDescribedAndUsed(t *testing.T) {
	used := map[string]bool{}
	for path, content := range sources(t) {
		file, diags := hclsyntax.ParseConfig(content, path, hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		for _, traversal := range regexp.MustCompile(`\bvar\.(\w+)`).FindAllSubmatch(file.Bytes, -1) {
			used[string(traversal[1])] = true
		}
	}
	for name, block := range load(t, inputs()).variables {
		if !used[name] {
			t.Errorf("the variable %s is not used", name)
		}
		for _, want := range []string{"description", "type"} {
			if block.Body.Attributes[want] == nil {
				t.Errorf("the variable %s has no %s", name, want)
			}
		}
	}
}

// resource is the full name of what the module's id stands for.
func resource(id string) string {
	kind, name, _ := strings.Cut(id, "/")
	return "projects/relay-prod/" + strings.TrimPrefix(kind, "google_pubsub_") + "s/" + name
}

// subscribe turns a subscription of the module into Pub/Sub's own.
func subscribe(t *testing.T, i instance) *pubsubpb.Subscription {
	t.Helper()
	kept, err := time.ParseDuration(i.text("message_retention_duration"))
	if err != nil {
		t.Fatal(err)
	}
	s := &pubsubpb.Subscription{
		Name: resource(subscription + "/" + i.text("name")), Topic: resource(i.text("topic")),
		AckDeadlineSeconds: int32(i.number("ack_deadline_seconds")), MessageRetentionDuration: durationpb.New(kept),
	}
	if ttl, ok := i.args["expiration_policy.ttl"]; ok {
		s.ExpirationPolicy = &pubsubpb.ExpirationPolicy{}
		if ttl.AsString() != "" {
			t.Errorf("%s expires", i.name)
		}
	}
	if slices.Contains(i.blocks, "dead_letter_policy") {
		s.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{
			DeadLetterTopic: resource(i.text("dead_letter_policy.dead_letter_topic")), MaxDeliveryAttempts: int32(i.number("dead_letter_policy.max_delivery_attempts")),
		}
	}
	return s
}

// TestAsCheckWants judges the module by what `worker check` judges by. What the
// schema test does not know, such as a filter or a retry policy, cannot be there.
func TestAsCheckWants(t *testing.T) {
	m := load(t, inputs())
	cfg, err := config.Load([]string{"GOOGLE_CLOUD_PROJECT=relay-prod"}, config.ForPubSub)
	if err != nil {
		t.Fatal(err)
	}
	// The worker's defaults find it.
	needs := provision.Needs{
		Subscription: cfg.SubscriptionName(), Topic: cfg.TopicName(), TopicGiven: true,
		DeadLetterTopic: cfg.DeadLetterTopicName(), DeadLetterSubscription: cfg.DeadLetterSubscriptionName(),
	}
	relay, oncall := subscribe(t, m.only(subscription, "relay")), subscribe(t, m.only(subscription, "oncall"))
	if relay.GetName() != needs.Subscription || oncall.GetName() != needs.DeadLetterSubscription {
		t.Errorf("got %s and %s", relay.GetName(), oncall.GetName())
	}
	for _, s := range provision.SubscriptionSettings() {
		if j := s.Judge(relay, needs); j.Verdict != provision.OK {
			t.Errorf("%s: %+v", s.Name, j)
		}
	}
	for _, s := range provision.DeadLetterSettings() {
		if j := s.Judge(oncall, needs); j.Verdict != provision.OK {
			t.Errorf("dead letters' %s: %+v", s.Name, j)
		}
	}
	if relay.GetDeadLetterPolicy().GetMaxDeliveryAttempts() != provision.MaxDeliveryAttempts || relay.GetAckDeadlineSeconds() != 60 {
		t.Errorf("got %v", relay)
	}
	needs.DeadLetterSubscription = "projects/relay-prod/subscriptions/telemetry-events-dlq-developers"
	developers := subscribe(t, m.only(subscription, "developers"))
	for _, s := range provision.DeadLetterSettings() {
		if j := s.Judge(developers, needs); j.Verdict != provision.OK {
			t.Errorf("developers' %s: %+v", s.Name, j)
		}
	}
	needs.DeadLetterView, needs.ReceiptsTopic = "projects/relay-prod/subscriptions/telemetry-events-dlq-view", "projects/relay-prod/topics/telemetry-events-receipts"
	for name, settings := range map[string][]provision.Setting{"view": provision.ViewSettings(), "receipts": provision.ReceiptSettings()} {
		sub := subscribe(t, m.only(subscription, name))
		for _, s := range settings {
			if j := s.Judge(sub, needs); j.Verdict != provision.OK {
				t.Errorf("%s' %s: %+v", name, s.Name, j)
			}
		}
	}
	// Receipts may be lost; they are no events.
	for _, i := range append(slices.DeleteFunc(m.find(topic, ""), func(i instance) bool { return i.name == "receipts" }), m.only(subscription, "relay"), m.only(subscription, "oncall")) {
		if v, ok := i.args["lifecycle.prevent_destroy"]; !ok || v.False() {
			t.Errorf("%s.%s can be destroyed, with its messages", i.kind, i.name)
		}
	}
}

// TestLeastPrivilege lists every grant.
func TestLeastPrivilege(t *testing.T) {
	m := load(t, inputs())
	var got []string
	for _, i := range m.instances {
		if strings.HasSuffix(i.kind, "_iam_member") {
			on := i.text("topic")
			switch i.kind {
			case "google_pubsub_subscription_iam_member":
				on = i.text("subscription")
			case "google_project_iam_member":
				on = "the project " + i.text("project")
			}
			got = append(got, i.text("member")+" "+i.text("role")+" "+on)
		}
	}
	const agent = "serviceAccount:service-123456@gcp-sa-pubsub.iam.gserviceaccount.com"
	want := []string{
		"serviceAccount:sams@x roles/pubsub.publisher telemetry-events",
		"serviceAccount:cody@x roles/pubsub.publisher telemetry-events",
		"serviceAccount:relay@x roles/pubsub.subscriber telemetry-events-relay",
		"serviceAccount:relay@x roles/pubsub.publisher telemetry-events-dlq",
		"group:oncall@x roles/pubsub.subscriber telemetry-events-dlq-oncall",
		"group:oncall@x roles/pubsub.publisher telemetry-events",
		"group:oncall@x roles/pubsub.publisher telemetry-events-dlq",
		"group:oncall@x roles/pubsub.subscriber telemetry-events-dlq-view",
		"group:oncall@x roles/pubsub.subscriber telemetry-events-receipts-oncall",
		"group:oncall@x google_project_iam_custom_role/ the project relay-prod",
		"serviceAccount:relay@x roles/pubsub.publisher telemetry-events-receipts",
		"group:audit@x roles/pubsub.viewer telemetry-events-receipts",
		"group:audit@x roles/pubsub.viewer telemetry-events-receipts-oncall",
		"group:audit@x roles/pubsub.viewer telemetry-events-dlq-view",
		"group:dev@x roles/pubsub.subscriber telemetry-events-dlq-developers",
		"group:audit@x roles/pubsub.viewer telemetry-events",
		"group:audit@x roles/pubsub.viewer telemetry-events-dlq",
		"group:audit@x roles/pubsub.viewer telemetry-events-relay",
		"group:audit@x roles/pubsub.viewer telemetry-events-dlq-oncall",
		agent + " roles/pubsub.publisher telemetry-events-dlq",
		agent + " roles/pubsub.subscriber telemetry-events-relay",
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("grants (-want +got):\n%s", diff)
	}
	var permissions []string
	for _, p := range m.only("google_project_iam_custom_role", "snapshots").args["permissions"].AsValueSlice() {
		permissions = append(permissions, p.AsString())
	}
	if want := []string{"pubsub.snapshots.create", "pubsub.snapshots.delete", "pubsub.snapshots.get", "pubsub.snapshots.seek"}; !slices.Equal(permissions, want) {
		t.Errorf("the custom role has %q", permissions)
	}
}

// TestOthersLeaveAuditLogs requires that every account except the worker's and the
// publishers' leaves an entry in Google's audit log when it reads or changes the content of
// a subscription.
func TestOthersLeaveAuditLogs(t *testing.T) {
	m := load(t, inputs())
	i := m.only("google_project_iam_audit_config", "pubsub")
	if i.text("project") != "relay-prod" || i.text("service") != "pubsub.googleapis.com" {
		t.Errorf("%v", i.args)
	}
	exempted := map[string][]string{}
	for n, kind := range i.every["audit_log_config.log_type"] {
		for _, member := range i.every["audit_log_config.exempted_members"][n].AsValueSlice() {
			exempted[kind.AsString()] = append(exempted[kind.AsString()], member.AsString())
		}
		slices.Sort(exempted[kind.AsString()])
	}
	want := map[string][]string{
		"DATA_READ":  {"serviceAccount:relay@x"},
		"DATA_WRITE": {"serviceAccount:cody@x", "serviceAccount:relay@x", "serviceAccount:sams@x"},
	}
	if diff := cmp.Diff(want, exempted); diff != "" {
		t.Errorf("Data Access logs, and whom they leave out (-want +got):\n%s", diff)
	}
}

// TestOptionalAccountsMayBeOmitted leaves out who is optional.
func TestOptionalAccountsMayBeOmitted(t *testing.T) {
	given := inputs()
	for _, name := range []string{"publishers", "developers", "auditors", "allowed_regions"} {
		delete(given, name)
	}
	given["view"] = cty.False
	m := load(t, given)
	for _, kind := range []string{"google_project_iam_custom_role", "google_project_iam_member"} {
		if n := len(m.find(kind, "")); n != 0 {
			t.Errorf("%d of %s without a view", n, kind)
		}
	}
	if n := len(m.find(subscription, "view")); n != 0 {
		t.Errorf("%d views", n)
	}
	if n := len(m.find(subscription, "developers")); n != 0 {
		t.Errorf("%d subscriptions for nobody", n)
	}
	if n := len(m.find("google_pubsub_topic_iam_member", "")); n != 5 {
		t.Errorf("%d grants on topics, want those of the worker (two), on-call (two) and the agent", n)
	}
	for _, i := range m.find(topic, "") {
		if slices.Contains(i.blocks, "message_storage_policy") {
			t.Error("a storage policy without regions")
		}
	}
}

func TestAlertPoliciesMatchRules(t *testing.T) {
	m := load(t, inputs())
	const age = `metric.type = "pubsub.googleapis.com/subscription/oldest_unacked_message_age" AND resource.type = "pubsub_subscription" AND resource.labels.subscription_id = `
	var got []string
	for _, i := range m.find(alert, "") {
		filter := i.text("conditions.condition_threshold.filter")
		id, ok := strings.CutPrefix(filter, age)
		if !ok {
			t.Errorf("%s watches %s", i.name, filter)
		}
		got = append(got, i.name+" "+strings.Trim(id, `"`)+" "+(time.Duration(i.number("conditions.condition_threshold.threshold_value"))*time.Second).String())
		if i.args["notification_channels"].LengthInt() != 1 {
			t.Errorf("%s tells nobody", i.name)
		}
		if !strings.Contains(i.text("documentation.content"), "docs/") || i.text("conditions.condition_threshold.comparison") != "COMPARISON_GT" {
			t.Errorf("%s: %v", i.name, i.args)
		}
	}
	slices.Sort(got)
	want := []string{"events_wait telemetry-events-relay 1h0m0s", "letters_vanish telemetry-events-dlq-oncall 576h0m0s", "letters_wait telemetry-events-dlq-oncall 24h0m0s"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("alerts (-want +got):\n%s", diff)
	}
}

// TestOutputsAreWorkerVariables makes sure that what the module tells is what the worker reads.
func TestOutputsAreWorkerVariables(t *testing.T) {
	m := load(t, inputs())
	variables := map[string]bool{}
	for field := range reflect.TypeFor[config.Config]().Fields() {
		variables[field.Tag.Get("env")] = true
	}
	for _, output := range m.outputs {
		value, diags := output.Body.Attributes["value"].Expr.Value(m.ctx)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if !strings.HasSuffix(output.Labels[0], "_environment") {
			continue
		}
		for name, v := range value.AsValueMap() {
			if !variables[name] || v.AsString() == "" {
				t.Errorf("%s=%v is nothing that the worker reads", name, v)
			}
		}
	}
}

// TestReadmeExampleMatchesVariables holds the README's example against the variables.
func TestReadmeExampleMatchesVariables(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)```hcl\n(.*?)```").FindSubmatch(text)
	if example == nil {
		t.Fatal("no example")
	}
	file, diags := hclsyntax.ParseConfig(example[1], "README.md", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if !bytes.Equal(hclwrite.Format(example[1]), example[1]) {
		t.Error("the example is not formatted")
	}
	m := load(t, inputs())
	given := file.Body.(*hclsyntax.Body).Blocks[0].Body.Attributes
	for name := range given {
		if m.variables[name] == nil && name != "source" {
			t.Errorf("the example sets %s, which is no variable", name)
		}
	}
	for name, block := range m.variables {
		if block.Body.Attributes["default"] == nil && given[name] == nil {
			t.Errorf("the example does not set %s", name)
		}
	}
}
