// Package emulator starts the Pub/Sub emulator of the Google Cloud CLI, for tests.
package emulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Emulator is a running emulator.
type Emulator struct {
	Host string // host:port
	cmd  *exec.Cmd
	done chan struct{}
}

// RequireVariable makes tests fail, rather than skip, without the emulator.
const RequireVariable = "REQUIRE_PUBSUB_EMULATOR"

var shared struct {
	sync.Mutex
	emulator *Emulator
	err      error
}

// Shared returns the emulator that all tests of a package share; they keep apart
// by using projects of their own. It skips the test where there is none. The
// package's TestMain must call StopShared.
func Shared(t testing.TB) *Emulator {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.emulator == nil && shared.err == nil {
		shared.emulator, shared.err = Start(context.Background())
	}
	if shared.err != nil {
		skip(t, shared.err)
	}
	return shared.emulator
}

// StopShared stops the shared emulator, if it was started.
func StopShared() {
	shared.Lock()
	defer shared.Unlock()
	if shared.emulator != nil {
		shared.emulator.Stop()
		shared.emulator = nil
	}
}

// New starts an emulator for one test alone.
func New(t testing.TB) *Emulator {
	t.Helper()
	e, err := Start(context.Background())
	if err != nil {
		skip(t, err)
	}
	t.Cleanup(e.Stop)
	return e
}

func skip(t testing.TB, err error) {
	t.Helper()
	if os.Getenv(RequireVariable) == "1" {
		t.Fatalf("%s=1, but the Pub/Sub emulator cannot be started: %v", RequireVariable, err)
	}
	t.Skipf("The Pub/Sub emulator cannot be started, so this is not tested (%s=1 makes it a failure): %v", RequireVariable, err)
}

// startTimeout bounds the start of a Java program, which takes seconds, and a minute where everything
// else runs beside it.
const startTimeout = 4 * time.Minute

// Start starts an emulator and waits until it answers.
func Start(ctx context.Context) (*Emulator, error) {
	jar, err := findJar()
	if err != nil {
		return nil, err
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	var output bytes.Buffer
	//nolint:gosec,noctx // Stop ends it, not a context. The jar is the one that the CLI has installed.
	cmd := exec.Command(java, "-Xmx1g", "-jar", jar, "--host=127.0.0.1", fmt.Sprintf("--port=%d", port))
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	e := &Emulator{Host: fmt.Sprintf("127.0.0.1:%d", port), cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // Stop kills it
		close(e.done)
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := e.answers(ctx); err != nil {
		e.Stop()
		return nil, fmt.Errorf("the emulator does not answer: %w\n%s", err, output.String())
	}
	return e, nil
}

// Process is the emulator's process, for tests that freeze it.
func (e *Emulator) Process() *os.Process { return e.cmd.Process }

// Stop kills the emulator and waits for its end. It may be called again.
func (e *Emulator) Stop() {
	_ = e.cmd.Process.Kill() // it may have ended by itself
	<-e.done
}

func (e *Emulator) answers(ctx context.Context) error {
	conn, err := grpc.NewClient(e.Host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // It only asked.
	_, err = pubsubpb.NewPublisherClient(conn).ListTopics(ctx,
		&pubsubpb.ListTopicsRequest{Project: "projects/answers"}, grpc.WaitForReady(true))
	return err
}

// findJar follows the link of the CLI to its folder.
func findJar() (string, error) {
	gcloud, err := exec.LookPath("gcloud")
	if err != nil {
		return "", err
	}
	if gcloud, err = filepath.EvalSymlinks(gcloud); err != nil {
		return "", err
	}
	pattern := filepath.Join(filepath.Dir(gcloud), "..", "platform", "pubsub-emulator", "lib", "cloud-pubsub-emulator-*-all.jar")
	found, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", errors.New("the Google Cloud CLI has no pubsub-emulator component")
	}
	return found[len(found)-1], nil
}

func freePort(ctx context.Context) (int, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close() //nolint:errcheck // The port is what counts.
	return l.Addr().(*net.TCPAddr).Port, nil
}
