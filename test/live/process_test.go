package live_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/samsserver"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// relayed is a worker's surroundings: topics and subscriptions at the target, and a SAMS and a gateway
// here.
type relayed struct {
	*place
	topic, subscription, deadTopic, deadSubscription string

	sams    *samsserver.Server
	gateway *gatewayserver.Server
}

// surround creates them. The caller closes them.
func (p *place) surround(ctx context.Context, change func(*pubsubpb.Subscription)) (*relayed, error) {
	r := &relayed{place: p}
	if err := r.open(ctx, change); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *relayed) open(ctx context.Context, change func(*pubsubpb.Subscription)) (err error) {
	// The dead-letter subscription must exist before the first event.
	if r.deadTopic, r.deadSubscription, err = r.queue(ctx, nil); err != nil {
		return err
	}
	if r.topic, r.subscription, err = r.queue(ctx, change); err != nil {
		return err
	}
	if r.sams, err = samsserver.Start(ctx, samsserver.Options{}); err != nil {
		return err
	}
	r.gateway, err = gatewayserver.Start(ctx, gatewayserver.Options{Introspector: r.sams})
	return err
}

func (r *relayed) close() {
	if r.gateway != nil {
		_ = r.gateway.Close()
	}
	if r.sams != nil {
		_ = r.sams.Close()
	}
}

// recorded counts how often the gateway has recorded each id.
func (r *relayed) recorded() map[string]int {
	ids := map[string]int{}
	for _, record := range r.gateway.Recorded() {
		ids[record.Event.GetId()]++
	}
	return ids
}

// process is a running worker.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr testenv.Buffer
	diagnostics    string        // host:port
	done           chan struct{} // closed when it has ended
}

// start starts a worker, which is killed when ctx ends.
func (r *relayed) start(ctx context.Context, vars []string, args ...string) (*process, error) {
	path, err := worker.path(ctx)
	if err != nil {
		return nil, err
	}
	p := &process{done: make(chan struct{})}
	if p.diagnostics, err = testenv.FreeAddr(); err != nil {
		return nil, err
	}
	p.cmd = exec.CommandContext(ctx, path, args...)
	p.cmd.Env = append(append(r.environ(),
		"PUBSUB_TOPIC="+r.topic, "PUBSUB_SUBSCRIPTION="+r.subscription, "DLQ_TOPIC="+r.deadTopic, "DLQ_SUBSCRIPTION="+r.deadSubscription,
		"TELEMETRY_GATEWAY_URL="+r.gateway.URL(), "SAMS_URL="+r.sams.URL(), "SAMS_CLIENT_ID="+r.sams.ClientID(), "SAMS_CLIENT_SECRET="+r.sams.ClientSecret(),
		"ENVIRONMENT_ID=live", "WORKER_INSECURE_DEV=true", "WORKER_SERVICES={unknownServices: reject, services: [{id: live-test}]}",
		"WORKER_MODE=drain", "WORKER_DRAIN_IDLE="+r.drainIdle.String(), "WORKER_DIAGNOSTICS_ADDR="+p.diagnostics, "LOG_FORMAT=json", "OTEL_SDK_DISABLED=true",
	), vars...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the status is what is asked for
	}()
	return p, nil
}

// kill ends the process at once, if it has not ended, and waits for its end.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// wait waits for the end and returns the exit status.
func (p *process) wait(ctx context.Context, within time.Duration) (int, error) {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), ctx.Err()
	case <-timer.C:
		return -1, p.failure("the worker still runs after %v", within)
	}
}

// stop ends the process with a signal and returns the exit status.
func (p *process) stop(ctx context.Context, s os.Signal) (int, error) {
	if err := p.cmd.Process.Signal(s); err != nil {
		return -1, p.failure("the worker has ended early: %v", err)
	}
	return p.wait(ctx, arriveTime)
}

// failure is an error with the end of what the worker has logged.
func (p *process) failure(format string, args ...any) error {
	log := p.stderr.String()
	return fmt.Errorf(format+"; the end of its log: %s", append(args, log[max(0, len(log)-1500):])...)
}

// metric returns the sum of a metric of the worker, 0 while it cannot be asked.
func (p *process) metric(ctx context.Context, name string) float64 {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.diagnostics+"/metrics", nil)
	if err != nil {
		return 0
	}
	request.Close = true // the connection is not kept
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0
	}
	return testenv.SumMetric(string(text), name)
}

// until polls until something is so, the process has ended, or time is over.
func (p *process) until(ctx context.Context, what string, within time.Duration, is func() bool) error {
	for deadline := time.Now().Add(within); !is(); {
		select {
		case <-p.done:
			return p.failure("the worker has ended before %s", what)
		default:
		}
		if time.Now().After(deadline) {
			return p.failure("not in %v: %s", within, what)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// summary is the last line of a run.
type summary struct {
	Received   int            `json:"received"`
	Submitted  int            `json:"submitted"`
	Rejected   map[string]int `json:"rejected"`
	Duplicates int            `json:"duplicates"`
	Released   int            `json:"released"`
	Ended      string         `json:"ended"`
}

func (s summary) balanced() bool {
	sum := s.Submitted + s.Duplicates + s.Released
	for _, n := range s.Rejected {
		sum += n
	}
	return s.Received == sum
}

func (p *process) summary() (s summary, err error) {
	lines := strings.Split(strings.TrimSpace(p.stdout.String()), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &s); err != nil {
		return s, p.failure("the last line on stdout is no summary: %v", err)
	}
	return s, nil
}
