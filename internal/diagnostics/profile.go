package diagnostics

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
)

// maxProfile is how long a profile or a trace may take, in seconds. `go tool pprof` asks
// for 30 by default.
const maxProfile = 30

// profiles serves net/http/pprof, one request at a time.
func profiles(guard func(http.HandlerFunc) http.Handler) http.Handler {
	mux := http.NewServeMux()
	busy := make(chan struct{}, 1)
	for path, handler := range map[string]http.HandlerFunc{
		"/debug/pprof/":        pprof.Index,
		"/debug/pprof/cmdline": pprof.Cmdline,
		"/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/symbol":  pprof.Symbol,
		"/debug/pprof/trace":   pprof.Trace,
	} {
		mux.Handle(path, guard(func(w http.ResponseWriter, r *http.Request) {
			if text := r.FormValue("seconds"); text != "" {
				if seconds, err := strconv.ParseFloat(text, 64); err != nil || !(seconds > 0 && seconds <= maxProfile) {
					answer(w, http.StatusBadRequest, fmt.Sprintf("seconds: expected more than 0 and at most %d", maxProfile))
					return
				}
			}
			select {
			case busy <- struct{}{}:
				defer func() { <-busy }()
			default:
				answer(w, http.StatusServiceUnavailable, "another profile is being taken")
				return
			}
			handler(w, r)
		}))
	}
	return mux
}

// forwarding are headers that a proxy adds. Behind a proxy on this machine every client
// seems to be on loopback. X-Forwarded-… stands for all headers with that prefix.
var forwarding = []string{
	"Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "Fastly-Client-Ip",
	"X-Original-Forwarded-For", "X-Envoy-External-Address", "X-Envoy-Internal", "X-Cloud-Trace-Context",
}

// loopbackOnly accepts only clients on this machine that connect directly. It also
// refuses a Host header with a name that is not this machine's: a web page in a local
// browser could reach the endpoint through a DNS name of its own (DNS rebinding).
func loopbackOnly(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !from.Addr().Unmap().IsLoopback() || forwarded(r.Header) || !loopbackName(r.Host) {
			answer(w, http.StatusForbidden, "set DIAGNOSTICS_SECRET to see this from elsewhere")
			return
		}
		next(w, r)
	})
}

func forwarded(h http.Header) bool {
	for name := range h {
		name = textproto.CanonicalMIMEHeaderKey(name)
		if strings.HasPrefix(name, "X-Forwarded") || slices.Contains(forwarding, name) {
			return true
		}
	}
	return false
}

func loopbackName(host string) bool {
	if addr, err := netip.ParseAddrPort(host); err == nil {
		return addr.Addr().Unmap().IsLoopback()
	}
	name, _, _ := strings.Cut(host, ":")
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return name == "localhost" || err == nil && addr.Unmap().IsLoopback()
}
