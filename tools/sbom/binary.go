package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// binary is the build information of a Go binary.
type binary struct {
	path     string // of the main package
	version  string // of the main module, or as it was built
	sum      string // SHA-256, in hex
	settings map[string]string
	modules  []module // the standard library comes first
}

type module struct {
	path, version string
	sum           string // of go.sum; empty for the standard library
	licence       string // an SPDX expression
}

// standard is the path of the standard library.
const standard = "std"

func read(path string) (*binary, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // It was only read.
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	b := &binary{path: info.Path, version: info.Main.Version, sum: hex.EncodeToString(h.Sum(nil)), settings: map[string]string{}}
	for _, s := range info.Settings {
		b.settings[s.Key] = s.Value
	}
	b.modules = append(b.modules, module{path: standard, version: strings.TrimPrefix(info.GoVersion, "go")})
	for _, dep := range info.Deps {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		b.modules = append(b.modules, module{path: dep.Path, version: dep.Version, sum: dep.Sum})
	}
	return b, nil
}

// bom is the bill of materials, without anything that differs from run to run.
func (b *binary) bom() *cdx.BOM {
	bom := cdx.NewBOM()
	name := b.path[strings.LastIndex(b.path, "/")+1:]
	main := cdx.Component{
		Type: cdx.ComponentTypeApplication, BOMRef: name, Name: name, Version: b.version,
		Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: b.sum}},
		Properties: &[]cdx.Property{{Name: "go:package", Value: b.path}, {Name: "go:os", Value: b.settings["GOOS"]}, {Name: "go:arch", Value: b.settings["GOARCH"]}},
	}
	bom.Metadata = &cdx.Metadata{Component: &main}
	var components []cdx.Component
	var refs []string
	for _, m := range b.modules {
		c := m.component()
		components, refs = append(components, c), append(refs, c.BOMRef)
	}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: name, Dependencies: &refs}}
	return bom
}

func (m module) component() cdx.Component {
	purl := fmt.Sprintf("pkg:golang/%s@%s", m.path, m.version)
	c := cdx.Component{
		Type: cdx.ComponentTypeLibrary, BOMRef: purl, PackageURL: purl, Name: m.path, Version: m.version,
		Licenses: &cdx.Licenses{{License: &cdx.License{ID: m.licence}}},
	}
	if strings.Contains(m.licence, " ") {
		c.Licenses = &cdx.Licenses{{Expression: m.licence}}
	}
	// "h1:" is the SHA-256 of the module's files in Go's own order, not of one file.
	if sum, ok := strings.CutPrefix(m.sum, "h1:"); ok {
		if raw, err := base64.StdEncoding.DecodeString(sum); err == nil {
			c.Properties = &[]cdx.Property{{Name: "go:h1", Value: hex.EncodeToString(raw)}}
		}
	}
	return c
}
