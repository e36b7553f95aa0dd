package logging

import (
	"bytes"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"
)

func TestSecretsAreMasked(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(Mask(slog.NewJSONHandler(&b, nil), "hunter2"))
	const token = "sams_at_x1"
	log = log.With("derived", "hunter2").WithGroup("group")
	log.Info("message "+token, "text", "see "+token, "error", errors.New("quoted "+token),
		"url", &url.URL{Scheme: "https", Host: "h", User: url.UserPassword("u", "p4ss")}, slog.Group("inner", "k", token), "n", 7)
	for _, secret := range []string{"hunter2", token, "p4ss"} {
		if strings.Contains(b.String(), secret) {
			t.Errorf("%s is logged: %s", secret, b.String())
		}
	}
	for _, want := range []string{`"msg":"message [secret]"`, `"derived":"[secret]"`, `"group":{`, `"text":"see [secret]"`, `"error":"quoted [secret]"`, `"inner":{"k":"[secret]"}`, `"n":7`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in %s", want, b.String())
		}
	}
}
