package recorder_test

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A service imports the recorder beside its own dependencies. These tests build
// such services, in modules of their own.

const relay = "github.com/sourcegraph/telemetry-relay"

// service is the source of a program that is built as another module.
type service struct {
	t   *testing.T
	dir string
}

// newService makes a module that requires this one, with the same dependencies and
// hashes, so that nothing has to be downloaded. Its path lies below this module's,
// so that it may import the internal bindings for comparison.
func newService(t *testing.T) service {
	t.Helper()
	if testing.Short() {
		t.Skip("runs programs of their own")
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	s := service{t, t.TempDir()}
	mod := string(s.read(filepath.Join(root, "go.mod")))
	mod = strings.Replace(mod, "module "+relay, "module "+relay+"/service", 1)
	s.write("go.mod", mod+"\nrequire "+relay+" v0.0.0\nreplace "+relay+" => "+root+"\n")
	s.write("go.sum", string(s.read(filepath.Join(root, "go.sum"))))
	return s
}

func (s service) read(file string) []byte {
	s.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

func (s service) write(file, text string) {
	s.t.Helper()
	file = filepath.Join(s.dir, file)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// program writes a main package that uses packages.
func (s service) program(name, body string, imports ...string) {
	s.t.Helper()
	var b strings.Builder
	b.WriteString("package main\n\nimport (\n")
	for _, path := range imports {
		b.WriteString("\t" + path + "\n")
	}
	b.WriteString(")\n\n" + body + "\n")
	s.write(filepath.Join(name, "main.go"), b.String())
}

func (s service) goTool(args ...string) (output string, err error) {
	cmd := exec.CommandContext(s.t.Context(), "go", args...)
	cmd.Dir = s.dir
	// The module's own go.mod decides, and nothing is downloaded.
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod -buildvcs=false", "GOWORK=off", "GOPROXY=off")
	text, err := cmd.CombinedOutput()
	return string(text), err
}

func (s service) mustGo(args ...string) string {
	s.t.Helper()
	output, err := s.goTool(args...)
	if err != nil {
		s.t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, output)
	}
	return output
}

// TestBothBindings runs a service that has Telemetry Gateway's bindings of its own:
// the same file and type names, registered by another package. A second
// registration panics while the program starts.
func TestBothBindings(t *testing.T) {
	s := newService(t)
	bindings := "../internal/telemetrygateway/v1/telemetrygateway.pb.go"
	s.write("bindings/telemetrygateway.pb.go", string(s.read(bindings)))
	imports := []string{
		`_ "` + relay + `/recorder"`, `_ "` + relay + `/recorder/recordertest"`, `_ "` + relay + `/recorder/recorderprom"`,
		`gateway "` + relay + `/service/bindings"`,
	}
	const body = `func main() { println((&gateway.Event{Feature: "cody.hover"}).GetFeature()) }`
	s.program("one", body, imports...)
	if output, err := s.goTool("run", "./one"); err != nil || output != "cody.hover\n" {
		t.Errorf("%v\n%s", err, output)
	}
	// So that the test can fail: with the relay's own bindings it panics.
	s.program("two", body, append(imports, `_ "`+relay+`/internal/telemetrygateway/v1"`)...)
	if output, err := s.goTool("run", "./two"); err == nil || !strings.Contains(output, "already registered") {
		t.Errorf("two sets of the same bindings: %v\n%s", err, output)
	}
}

// lines splits the output of a command, without empty lines, sorted.
func lines(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// without returns the elements of all that are not in others.
func without(all, others []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(others, s) })
}

// weight is the packages and bytes of a program.
type weight struct {
	packages, modules []string
	bytes             int64
}

func (s service) weigh(name string) weight {
	s.t.Helper()
	binary := filepath.Join(s.dir, name+".bin")
	s.mustGo("build", "-ldflags=-s -w", "-o", binary, "./"+name)
	info, err := os.Stat(binary)
	if err != nil {
		s.t.Fatal(err)
	}
	own := func(path string) bool { return strings.HasPrefix(path, relay+"/service") }
	return weight{
		packages: slices.DeleteFunc(lines(s.mustGo("list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./"+name)), own),
		modules:  slices.DeleteFunc(lines(s.mustGo("list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./"+name)), own),
		bytes:    info.Size(),
	}
}

// TestImportAddsLittle prints how much importing the recorder adds to a service, and bounds
// it. Beside the Pub/Sub client, which every publisher has, it may add only packages of
// this module.
func TestImportAddsLittle(t *testing.T) {
	s := newService(t)
	s.program("empty", "func main() {}")
	const pubsub = `"cloud.google.com/go/pubsub/v2"`
	s.program("client", `func main() {
	client, err := pubsub.NewClient(context.Background(), "p")
	if err != nil {
		panic(err)
	}
	_, _ = client.Publisher("t").Publish(context.Background(), &pubsub.Message{}).Get(context.Background())
	_ = client.Close()
}`, `"context"`, pubsub)
	const use = `
	rec, err := recorder.New(context.Background(), recorder.Config{Service: recorder.Service{ID: "sams"}, Topic: "projects/p/topics/t"})
	if err != nil {
		panic(err)
	}
	_ = rec.Record(context.Background(), "cody.hover", "shown", recorder.Metadata{"tier": 1})
	_ = rec.Close(context.Background())
`
	s.program("recorder", "func main() {"+use+"}", `"context"`, `"`+relay+`/recorder"`)
	s.program("tests", "func main() {"+use+`
	var tb testing.TB
	recordertest.New(tb, recordertest.WithServices("services: []")).CheckCatalogue("telemetry.yaml")
}`, `"context"`, `"testing"`, `"`+relay+`/recorder"`, `"`+relay+`/recorder/recordertest"`)
	empty, client, recorder, tests := s.weigh("empty"), s.weigh("client"), s.weigh("recorder"), s.weigh("tests")

	for _, c := range []struct {
		what              string
		more, than        weight
		packages, modules []string // that may come
		bytes             int64    // at most
	}{
		{
			"the recorder, beside the Pub/Sub client", recorder, client,
			[]string{relay + "/internal/event", relay + "/internal/policy", relay + "/recorder", relay + "/recorder/internal/hook"},
			[]string{relay}, 600 << 10,
		},
		{
			"recordertest, in tests, beside the recorder", tests, recorder,
			[]string{"go.yaml.in/yaml/v3", relay + "/internal/catalogue", relay + "/internal/servicesyaml", relay + "/recorder/recordertest"},
			[]string{"go.yaml.in/yaml/v3"}, 1 << 20,
		},
	} {
		packages, modules := without(c.more.packages, c.than.packages), without(c.more.modules, c.than.modules)
		added := c.more.bytes - c.than.bytes
		t.Logf("%s: %d packages, %d modules, %d KiB\n  %s", c.what, len(packages), len(modules), added>>10, strings.Join(packages, "\n  "))
		if more := without(packages, c.packages); len(more) > 0 {
			t.Errorf("%s: unexpected packages %q", c.what, more)
		}
		if more := without(modules, c.modules); len(more) > 0 {
			t.Errorf("%s: unexpected modules %q", c.what, more)
		}
		if added > c.bytes {
			t.Errorf("%s: %d bytes, expected at most %d", c.what, added, c.bytes)
		}
	}
	t.Logf("the recorder, beside nothing: %d packages, %d modules, %d KiB; of these the Pub/Sub client has %d, %d and %d KiB",
		len(recorder.packages), len(recorder.modules), (recorder.bytes-empty.bytes)>>10,
		len(client.packages), len(client.modules), (client.bytes-empty.bytes)>>10)
}

// TestRequiredModulesAreReleased requires that go.mod names no unreleased version without a
// reason, because it raises the versions of every service that imports the recorder.
func TestRequiredModulesAreReleased(t *testing.T) {
	text, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	pseudo := regexp.MustCompile(`^\s*(\S+) v\d+\.\d+\.\d+-(?:\S+\.)?\d{14}-[0-9a-f]{12}(.*)$`)
	// Modules without any release.
	unversioned := regexp.MustCompile(`^(google\.golang\.org/genproto(/.*)?|github\.com/mitchellh/colorstring|github\.com/munnerz/goautoneg)$`)
	for scanner := bufio.NewScanner(bytes.NewReader(text)); scanner.Scan(); {
		if m := pseudo.FindStringSubmatch(scanner.Text()); m != nil && !unversioned.MatchString(m[1]) &&
			!strings.Contains(strings.TrimPrefix(strings.TrimSpace(m[2]), "// indirect"), "// ") {
			t.Errorf("an unreleased version without a reason: %s", scanner.Text())
		}
	}
}

// TestOldCalls requires that a call of an earlier version compiles, or that the compiler's
// message names its replacement. CHANGES.md lists those that do not compile.
func TestOldCalls(t *testing.T) {
	s := newService(t)
	const declarations = `
var (
	rec  *recorder.Recorder
	ctx  = context.Background()
	name = os.Args[0]
)

`
	calls := []struct {
		body string
		want string // a part of the compiler's message, empty if it compiles
	}{
		{`_ = rec.Record(ctx, "cody.hover", "shown")`, ""},
		{`_ = rec.Record(ctx, "cody.hover", "shown", recorder.Metadata{"tier": 1, "cached": recorder.Bool(true)}, recorder.MetadataVersion(1))`, ""},
		{`const key = "tier"; m := recorder.Metadata{}; m[key] = 1.5; _ = rec.Record(ctx, "cody.hover", "shown", m)`, ""},
		{`_ = rec.Record(recorder.ContextWith(ctx, recorder.User{UserID: 1}), "cody.hover", "shown", recorder.PrivateMetadata{name: name}, recorder.FeatureFlags{name: name})`, ""},
		{`var err *recorder.InvalidError = &recorder.InvalidError{Feature: "a", Action: "b"}; _ = err.Feature.Check()`, ""},
		{`_, _ = recorder.New(ctx, recorder.Config{Topic: name, Service: recorder.Service{ID: name}, BlockFor: 1})`, ""},
		{`_ = rec.Record(ctx, recorder.DynamicFeature(name), recorder.DynamicAction(name), recorder.Metadata{recorder.DynamicKey(name): 1})`, ""},
		{`const feature recorder.Feature = "cody.hover"; _ = rec.Record(ctx, feature, "shown")`, "recorder.untypedConstFeature"},
		{`_ = rec.Record(ctx, recorder.Feature(name), "shown")`, "recorder.untypedConstFeature"},
		{`_ = rec.Record(ctx, "cody.hover", recorder.Action(name))`, "recorder.untypedConstAction"},
		{`_ = rec.Record(ctx, name, "shown")`, "recorder.untypedConstFeature"},
		{`_ = rec.Record(ctx, "cody.hover", "shown", recorder.Metadata{name: 1})`, "recorder.untypedConstKey"},
		{`_, _ = recorder.New(ctx, recorder.Config{Registerer: prometheus.DefaultRegisterer})`, "recorder.UseRecorderpromRegister"},
	}
	program := func(i int) string { return "old" + string(rune('a'+i)) }
	for i, c := range calls {
		imports := []string{`"context"`, `"os"`, `"` + relay + `/recorder"`}
		if strings.Contains(c.body, "prometheus.") {
			imports = append(imports, `"github.com/prometheus/client_golang/prometheus"`)
		}
		s.program(program(i), declarations+"func main() {\n"+c.body+"\n}", imports...)
	}
	output, _ := s.goTool("vet", "./...") // what it says of each is judged
	for i, c := range calls {
		_, said, failed := strings.Cut(output, "/service/"+program(i)+"\n")
		said, _, _ = strings.Cut(said, "\n# "+relay)
		if failed != (c.want != "") || !strings.Contains(said, c.want) {
			t.Errorf("%s: the compiler says %q, want %q", c.body, said, c.want)
		}
	}
}
