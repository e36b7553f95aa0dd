// Command protogen generates the Go bindings of the .proto files in one
// directory, in place, with the protoc plugins pinned in this module.
//
// It is protoc for a project with one small API: it compiles the files with a
// parser written in Go and hands the result to protoc-gen-go and
// protoc-gen-go-grpc. `go generate ./...` runs it; nothing has to be installed.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// plugins are tools of this module's go.mod.
var plugins = []string{"protoc-gen-go", "protoc-gen-go-grpc"}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go -C tools run ./protogen DIRECTORY   (relative to tools)")
		os.Exit(2)
	}
	if err := generate(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

// generate compiles every .proto file in dir and writes what the plugins make
// of them next to it.
func generate(ctx context.Context, dir string) error {
	request, err := compile(ctx, dir)
	if err != nil {
		return err
	}
	input, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	if err != nil {
		return err
	}
	for _, plugin := range plugins {
		if err := run(ctx, plugin, input, dir); err != nil {
			return fmt.Errorf("%s: %w", plugin, err)
		}
	}
	return nil
}

// compile returns the request for all .proto files in dir: their descriptors
// with comments, preceded by those of everything that they import.
func compile(ctx context.Context, dir string) (*pluginpb.CodeGeneratorRequest, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.proto"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no .proto files in %s", dir)
	}
	var names []string
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{dir}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(ctx, names...)
	if err != nil {
		return nil, err
	}
	var protos []*descriptorpb.FileDescriptorProto
	seen := make(map[string]bool)
	for _, file := range files {
		protos = appendWithImports(protos, file, seen)
	}
	return &pluginpb.CodeGeneratorRequest{
		FileToGenerate: names,
		Parameter:      new("paths=source_relative"),
		ProtoFile:      protos,
	}, nil
}

// appendWithImports appends file after its imports, each once: plugins want
// that order.
func appendWithImports(protos []*descriptorpb.FileDescriptorProto, file protoreflect.FileDescriptor, seen map[string]bool) []*descriptorpb.FileDescriptorProto {
	if seen[file.Path()] {
		return protos
	}
	seen[file.Path()] = true
	for i := range file.Imports().Len() {
		protos = appendWithImports(protos, file.Imports().Get(i).FileDescriptor, seen)
	}
	return append(protos, protoutil.ProtoFromFileDescriptor(file))
}

// run gives the request to one plugin and writes the files of its answer.
func run(ctx context.Context, plugin string, request []byte, dir string) error {
	command := exec.CommandContext(ctx, "go", "tool", plugin) //nolint:gosec // one of the constants above
	command.Stdin = bytes.NewReader(request)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		return err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(output, &response); err != nil {
		return fmt.Errorf("unreadable answer: %w", err)
	}
	if response.GetError() != "" {
		return errors.New(response.GetError())
	}
	for _, file := range response.GetFile() {
		if file.GetInsertionPoint() != "" {
			return fmt.Errorf("%s: insertion points are not supported", file.GetName())
		}
		path := filepath.Join(dir, file.GetName())
		if err := os.WriteFile(path, []byte(file.GetContent()), 0o644); err != nil { //nolint:gosec // as public as the rest of the sources
			return err
		}
	}
	return nil
}
