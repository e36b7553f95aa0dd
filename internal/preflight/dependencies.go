package preflight

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/retry"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// Configuration warns of settings that are valid and probably not intended.
func Configuration(cfg *config.Config) []Finding {
	const check = "configuration"
	services := len(cfg.Services.Services())
	findings := []Finding{ok(check, "", fmt.Sprintf("valid: mode %s, environment %s, %d services listed", cfg.Mode, cfg.Environment, services))}
	if cfg.MSP {
		if cfg.EmulatorHost != "" {
			findings = append(findings, failure(check+" emulator", cfg.EmulatorHost, "PUBSUB_EMULATOR_HOST is set in a live environment", "the worker does not see the real Pub/Sub", "unset it"))
		}
		if cfg.Environment == "unknown" {
			findings = append(findings, warning(check+" environment", "", "ENVIRONMENT_ID is not set", "events that do not name their environment are recorded for the environment unknown", "set ENVIRONMENT_ID"))
		}
	}
	if addr := cfg.ListenAddr(); addr != "" && cfg.DiagnosticsSecret == "" {
		findings = append(findings, warning(check+" endpoints", addr, "DIAGNOSTICS_SECRET is not set", "every client that reaches the port can read health and readiness", "set DIAGNOSTICS_SECRET"))
	}
	return findings
}

// Tokens gives access tokens.
type Tokens interface {
	// Grant fetches a token if there is none, and returns its scopes and expiry.
	Grant(ctx context.Context) (submit.Grant, error)
}

// Gateway answers a stream without events.
type Gateway interface {
	Probe(ctx context.Context, requestID string) error
	// Connect connects, and repeats that until it succeeds or ctx ends.
	Connect(ctx context.Context) error
	// TLS returns the state of the last connection with TLS, or the error of the last
	// handshake; both are nil before the first.
	TLS() (*tls.ConnectionState, error)
}

// Addresses of the worker's dependencies.
type Addresses struct{ SAMS, Gateway string }

// shortToken is a lifetime with which the worker fetches tokens all the time.
const shortToken = time.Minute

// Dependencies checks SAMS and the gateway. It repeats a check whose failure may be
// transient until ctx ends.
func Dependencies(ctx context.Context, tokens Tokens, gateway Gateway, at Addresses) []Finding {
	var (
		line  Finding
		other sync.WaitGroup
	)
	// A broken connection shows without a token, too.
	other.Go(func() { line = judgeLine(gateway, at.Gateway, gateway.Connect(ctx)) })
	grant, err := again(ctx, func() (submit.Grant, error) { return tokens.Grant(ctx) }, func(err error) bool {
		_, refused := errors.AsType[*submit.CredentialsError](err)
		return refused
	})
	if err != nil {
		other.Wait()
		return append(noToken(at.SAMS, err), line, skipped("gateway", at.Gateway, "there is no token"))
	}
	answer := probe(ctx, gateway, at.Gateway)
	other.Wait()
	return append(judgeGrant(at.SAMS, grant), line, answer)
}

func noToken(at string, err error) []Finding {
	const consequence = "the worker receives nothing"
	f := failure("SAMS token", at, "none: "+oneLine(err), consequence, "check SAMS_URL, SAMS_API_URL and the network; then run this again")
	refused, isRefusal := errors.AsType[*submit.CredentialsError](err)
	switch {
	case isRefusal && refused.Code == "invalid_scope":
		return []Finding{
			skipped("SAMS token", at, "none without the scope"),
			failure("SAMS scope", at, fmt.Sprintf("SAMS refuses the scope %s (HTTP %d, %s)", submit.Scope, refused.Status, refused.Code), consequence,
				"have "+submit.Scope+" granted to the client SAMS_CLIENT_ID"),
		}
	case isRefusal:
		f = failure("SAMS token", at, fmt.Sprintf("SAMS refuses the client (%s)", strings.TrimSuffix(fmt.Sprintf("HTTP %d, %s", refused.Status, refused.Code), ", ")),
			consequence, "check SAMS_CLIENT_ID and SAMS_CLIENT_SECRET, and that SAMS_URL or SAMS_API_URL is the SAMS that issued them")
	}
	return []Finding{f, skipped("SAMS scope", at, "there is no token")}
}

func judgeGrant(at string, grant submit.Grant) []Finding {
	life := "for a time that SAMS does not state"
	if !grant.Expires.IsZero() {
		life = "for " + time.Until(grant.Expires).Round(time.Second).String()
	}
	token := ok("SAMS token", at, "received, good "+life)
	if !grant.Expires.IsZero() && time.Until(grant.Expires) < shortToken {
		token = warning("SAMS token", at, "received, good "+life+" only", "the worker fetches tokens all the time", "ask the owners of SAMS why its tokens expire so soon")
	}
	switch {
	case len(grant.Scopes) == 0:
		return []Finding{token, ok("SAMS scope", at, submit.Scope+" was asked for and not refused")}
	case grant.Has(submit.Scope):
		return []Finding{token, ok("SAMS scope", at, submit.Scope)}
	}
	return []Finding{token, failure("SAMS scope", at, fmt.Sprintf("the token has %q", strings.Join(grant.Scopes, " ")), "the gateway refuses the token",
		"have "+submit.Scope+" granted to the client SAMS_CLIENT_ID")}
}

func probe(ctx context.Context, gateway Gateway, at string) Finding {
	const (
		check       = "gateway"
		consequence = "the worker receives nothing"
	)
	_, err := again(ctx, func() (struct{}, error) { return struct{}{}, gateway.Probe(ctx, "check") }, func(err error) bool {
		f, is := errors.AsType[*submit.Failure](err)
		return is && f.Class != submit.Transient && f.Class != submit.SAMS
	})
	if err == nil {
		return ok(check, at, "accepts the token, in a stream without events")
	}
	f, is := errors.AsType[*submit.Failure](err)
	if !is {
		return failure(check, at, oneLine(err), consequence, "run this again")
	}
	detail := oneLine(errors.New(f.Detail()))
	switch f.Class {
	case submit.Credentials:
		return failure(check, at, "refuses the token: "+detail, consequence,
			"check that TELEMETRY_GATEWAY_URL and SAMS_URL are of the same environment, and that the client has the scope "+submit.Scope)
	case submit.Fatal:
		if f.NoGateway() {
			return failure(check, at, "is no Telemetry Gateway: "+detail, consequence, "check TELEMETRY_GATEWAY_URL")
		}
		return failure(check, at, "refuses a stream without events: "+detail, consequence, "check ENVIRONMENT_ID; else ask the gateway's owners")
	case submit.SAMS:
		return skipped(check, at, "the token is gone: "+detail)
	default:
		return failure(check, at, "does not answer: "+detail, consequence, "check TELEMETRY_GATEWAY_URL and the network; then run this again")
	}
}

func judgeLine(gateway Gateway, at string, err error) Finding {
	const (
		check       = "gateway TLS"
		consequence = "no token and no event is sent"
	)
	state, refused := gateway.TLS()
	switch {
	case strings.HasPrefix(at, "http://"):
		return skipped(check, at, "plain text, as WORKER_INSECURE_DEV allows on loopback")
	case refused != nil:
		return failure(check, at, oneLine(refused), consequence, "check TELEMETRY_GATEWAY_URL, the clock, and the CA certificates of this machine")
	case err != nil || state == nil:
		return failure(check, at, "cannot be connected to"+because(err), consequence, "check TELEMETRY_GATEWAY_URL and the network; then run this again")
	}
	detail := tls.VersionName(state.Version)
	if len(state.PeerCertificates) > 0 {
		detail += ", certificate good until " + state.PeerCertificates[0].NotAfter.UTC().Format(time.DateOnly)
	}
	return ok(check, at, detail)
}

// because adds a reason, unless the only reason is the timeout.
func because(err error) string {
	if network, ok := errors.AsType[*net.OpError](err); ok {
		return ": " + oneLine(network)
	}
	return ""
}

// again repeats a check until it succeeds, fails for good, or ctx ends.
func again[T any](ctx context.Context, try func() (T, error), hopeless func(error) bool) (T, error) {
	return retry.Until(ctx, tryPause, try, func(err error) retry.Kind {
		switch {
		case hopeless(err):
			return retry.Final
		case timedOut(err):
			return retry.Late
		}
		return retry.Transient
	})
}

// tryPause is the longest pause between two tries.
const tryPause = time.Minute

func timedOut(err error) bool {
	f, is := errors.AsType[*submit.Failure](err)
	return is && f.TimedOut() || errors.Is(err, context.DeadlineExceeded)
}
