package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/sourcegraph/telemetry-relay/internal/logging"
)

// audit returns the log of who changes what. It is JSON everywhere, and no level
// hides it.
func (d *desk) audit() *slog.Logger {
	return logging.New(d.env.stderr, "info", "json").With(
		"audit", true, "action", "dlq "+d.change.action, "who", d.env.who(), "filter", d.filter.String(),
		"subscription", d.cfg.DeadLetterSubscriptionName()).With(d.change.audit...)
}

// who returns who is at work, as far as the environment says it.
func (env environment) who() string {
	for _, value := range []string{env.lookup("CLOUDSDK_CORE_ACCOUNT"), env.gcloudAccount(), env.lookup("USER"), env.lookup("LOGNAME")} {
		if value != "" {
			return value
		}
	}
	return "unknown"
}

// gcloudAccount reads the active account of the Google Cloud CLI, if there is one.
func (env environment) gcloudAccount() string {
	dir := env.lookup("CLOUDSDK_CONFIG")
	if dir == "" {
		home := env.lookup("HOME")
		if home == "" {
			return ""
		}
		dir = filepath.Join(home, ".config", "gcloud")
	}
	name := "default"
	if active, err := os.ReadFile(filepath.Join(dir, "active_config")); err == nil {
		name = strings.TrimSpace(string(active))
	}
	content, err := os.ReadFile(filepath.Join(dir, "configurations", "config_"+filepath.Base(name)))
	if err != nil {
		return ""
	}
	for text := range strings.Lines(string(content)) {
		if key, value, ok := strings.Cut(text, "="); ok && strings.TrimSpace(key) == "account" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
