package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Imports come before what imports them, and each once: plugins rely on it.
func TestCompileOrdersImports(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"a.proto": `syntax = "proto3"; import "b.proto"; import "google/protobuf/timestamp.proto"; message A { B b = 1; google.protobuf.Timestamp at = 2; }`,
		"b.proto": `syntax = "proto3"; import "google/protobuf/timestamp.proto"; message B { google.protobuf.Timestamp at = 1; }`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	request, err := compile(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, file := range request.GetProtoFile() {
		got = append(got, file.GetName())
	}
	if want := []string{"google/protobuf/timestamp.proto", "b.proto", "a.proto"}; !slices.Equal(got, want) {
		t.Errorf("files in the order %v, want %v", got, want)
	}
	if want := []string{"a.proto", "b.proto"}; !slices.Equal(request.GetFileToGenerate(), want) {
		t.Errorf("generates %v, want %v", request.GetFileToGenerate(), want)
	}
}

func TestCompileReportsFaults(t *testing.T) {
	dir := t.TempDir()
	if _, err := compile(t.Context(), dir); err == nil {
		t.Error("no error for a directory without .proto files")
	}
	if err := os.WriteFile(filepath.Join(dir, "a.proto"), []byte(`syntax = "proto3"; message A { Missing m = 1; }`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := compile(t.Context(), dir); err == nil {
		t.Error("no error for an unknown type")
	}
}
