package terraform_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// instance is one instance of a resource, evaluated. Arguments of blocks have
// the block's name before theirs: expiration_policy.ttl.
type instance struct {
	kind, name string // google_pubsub_topic, events
	args       map[string]cty.Value
	every      map[string][]cty.Value // the same, of blocks that are repeated
	blocks     []string               // by their full names
}

// text returns an argument that is a string; empty if it is not there.
func (i instance) text(arg string) string {
	if v, ok := i.args[arg]; ok && v.Type() == cty.String {
		return v.AsString()
	}
	return ""
}

// number returns an argument that is a number; 0 if it is not there.
func (i instance) number(arg string) int64 {
	v, ok := i.args[arg]
	if !ok || v.Type() != cty.Number {
		return 0
	}
	n, _ := v.AsBigFloat().Int64()
	return n
}

// module is a Terraform module, as far as it can be evaluated without a provider.
type module struct {
	t         *testing.T
	variables map[string]*hclsyntax.Block
	locals    map[string]hclsyntax.Expression
	resources []*hclsyntax.Block // data sources, too
	outputs   []*hclsyntax.Block
	ctx       *hcl.EvalContext
	instances []instance
}

// sources returns the module's files.
func sources(t *testing.T) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("*.tf")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files: %v", err)
	}
	files := map[string][]byte{}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[path] = content
	}
	return files
}

// load reads the module and evaluates it with inputs.
func load(t *testing.T, inputs map[string]cty.Value) *module {
	t.Helper()
	m := &module{t: t, variables: map[string]*hclsyntax.Block{}, locals: map[string]hclsyntax.Expression{}}
	for path, content := range sources(t) {
		file, diags := hclsyntax.ParseConfig(content, path, hcl.InitialPos)
		m.good(diags)
		for _, block := range file.Body.(*hclsyntax.Body).Blocks {
			switch block.Type {
			case "variable":
				m.variables[block.Labels[0]] = block
			case "locals":
				for name, attr := range block.Body.Attributes {
					m.locals[name] = attr.Expr
				}
			case "resource", "data":
				m.resources = append(m.resources, block)
			case "output":
				m.outputs = append(m.outputs, block)
			case "terraform":
			default:
				t.Errorf("%s: a block of an unknown type %q", path, block.Type)
			}
		}
	}
	m.ctx = &hcl.EvalContext{
		Variables: map[string]cty.Value{"var": cty.ObjectVal(m.inputs(inputs))},
		Functions: map[string]function.Function{
			"length": stdlib.LengthFunc, "merge": stdlib.MergeFunc, "setproduct": stdlib.SetProductFunc, "one": oneFunc, "concat": stdlib.ConcatFunc,
		},
	}
	// References are resolved by evaluating until nothing changes: names
	// come from variables, ids from nothing.
	m.placeholders()
	const rounds = 4
	for range rounds {
		m.evaluateLocals()
		m.evaluateResources()
	}
	return m
}

func (m *module) good(diags hcl.Diagnostics) {
	m.t.Helper()
	if diags.HasErrors() {
		m.t.Fatal(diags)
	}
}

// inputs are the given values and the variables' defaults.
func (m *module) inputs(given map[string]cty.Value) map[string]cty.Value {
	m.t.Helper()
	all := maps.Clone(given)
	for name, block := range m.variables {
		if _, ok := all[name]; ok {
			continue
		}
		attr := block.Body.Attributes["default"]
		if attr == nil {
			m.t.Fatalf("no value for the variable %s", name)
		}
		value, diags := attr.Expr.Value(nil)
		m.good(diags)
		all[name] = value
	}
	for name := range given {
		if m.variables[name] == nil {
			m.t.Fatalf("there is no variable %s", name)
		}
	}
	return all
}

// placeholders are what resources are before anything is known of them.
func (m *module) placeholders() {
	for _, block := range m.resources {
		m.set(block, cty.DynamicVal)
	}
	m.ctx.Variables["local"] = cty.DynamicVal
}

// set makes a resource known to expressions.
func (m *module) set(block *hclsyntax.Block, value cty.Value) {
	root, kind, name := m.ctx.Variables, block.Labels[0], block.Labels[1]
	if block.Type == "data" {
		data := map[string]cty.Value{}
		if d, ok := root["data"]; ok {
			data = d.AsValueMap()
		}
		data[kind] = cty.ObjectVal(map[string]cty.Value{name: value})
		root["data"] = cty.ObjectVal(data)
		return
	}
	all := map[string]cty.Value{}
	if k, ok := root[kind]; ok {
		all = k.AsValueMap()
	}
	all[name] = value
	root[kind] = cty.ObjectVal(all)
}

func (m *module) evaluateLocals() {
	m.t.Helper()
	values := map[string]cty.Value{}
	for name, expr := range m.locals {
		value, diags := expr.Value(m.ctx)
		m.good(diags)
		values[name] = value
	}
	m.ctx.Variables["local"] = cty.ObjectVal(values)
}

// meta are arguments that Terraform itself understands.
var meta = []string{"count", "for_each", "depends_on"}

func (m *module) evaluateResources() {
	m.t.Helper()
	m.instances = nil
	for _, block := range m.resources {
		var all []cty.Value
		for _, each := range m.each(block) {
			i := instance{kind: block.Labels[0], name: block.Labels[1], args: map[string]cty.Value{}, every: map[string][]cty.Value{}}
			m.evaluateBody(&i, "", block.Body, each)
			known := map[string]cty.Value{
				"id":     cty.StringVal(i.kind + "/" + i.text("name")),
				"name":   cty.StringVal(i.text("name")),
				"number": cty.StringVal("123456"), // of a project
			}
			all = append(all, cty.ObjectVal(known))
			if block.Type == "resource" {
				m.instances = append(m.instances, i)
			}
		}
		switch {
		case block.Body.Attributes["count"] != nil && len(all) == 0:
			m.set(block, cty.EmptyTupleVal)
		case block.Body.Attributes["count"] != nil:
			m.set(block, cty.TupleVal(all))
		case block.Body.Attributes["for_each"] == nil:
			m.set(block, all[0])
		}
		if depends := block.Body.Attributes["depends_on"]; depends != nil {
			_, diags := depends.Expr.Value(m.ctx)
			m.good(diags)
		}
	}
}

// each returns a context for every instance of a resource.
func (m *module) each(block *hclsyntax.Block) []*hcl.EvalContext {
	m.t.Helper()
	count, forEach := block.Body.Attributes["count"], block.Body.Attributes["for_each"]
	var contexts []*hcl.EvalContext
	switch {
	case count != nil:
		n, diags := count.Expr.Value(m.ctx)
		m.good(diags)
		most, _ := n.AsBigFloat().Int64()
		for range most {
			contexts = append(contexts, m.ctx.NewChild())
		}
	case forEach != nil:
		all, diags := forEach.Expr.Value(m.ctx)
		m.good(diags)
		if !all.IsWhollyKnown() {
			return nil // in another round
		}
		for it := all.ElementIterator(); it.Next(); {
			key, value := it.Element()
			child := m.ctx.NewChild()
			if all.Type().IsSetType() {
				key = value
			}
			child.Variables = map[string]cty.Value{"each": cty.ObjectVal(map[string]cty.Value{"key": key, "value": value})}
			contexts = append(contexts, child)
		}
	default:
		contexts = append(contexts, m.ctx.NewChild())
	}
	return contexts
}

func (m *module) evaluateBody(i *instance, prefix string, body *hclsyntax.Body, ctx *hcl.EvalContext) {
	m.t.Helper()
	for name, attr := range body.Attributes {
		if prefix == "" && slices.Contains(meta, name) {
			continue
		}
		value, diags := attr.Expr.Value(ctx)
		m.good(diags)
		i.args[prefix+name] = value
		i.every[prefix+name] = append(i.every[prefix+name], value)
	}
	for _, block := range body.Blocks {
		if block.Type != "dynamic" {
			i.blocks = append(i.blocks, prefix+block.Type)
			m.evaluateBody(i, prefix+block.Type+".", block.Body, ctx)
			continue
		}
		all, diags := block.Body.Attributes["for_each"].Expr.Value(ctx)
		m.good(diags)
		for it := all.ElementIterator(); it.Next(); {
			key, value := it.Element()
			child := ctx.NewChild()
			child.Variables = map[string]cty.Value{block.Labels[0]: cty.ObjectVal(map[string]cty.Value{"key": key, "value": value})}
			i.blocks = append(i.blocks, prefix+block.Labels[0])
			m.evaluateBody(i, prefix+block.Labels[0]+".", block.Body.Blocks[0].Body, child)
		}
	}
}

// find returns the instances of a resource.
func (m *module) find(kind, name string) (found []instance) {
	for _, i := range m.instances {
		if i.kind == kind && (name == "" || i.name == name) {
			found = append(found, i)
		}
	}
	return found
}

// only returns the one instance of a resource.
func (m *module) only(kind, name string) instance {
	m.t.Helper()
	found := m.find(kind, name)
	if len(found) != 1 {
		m.t.Fatalf("%d of %s.%s", len(found), kind, name)
	}
	return found[0]
}

// oneFunc is Terraform's: the one element, or null.
var oneFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "list", Type: cty.DynamicPseudoType}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		if args[0].LengthInt() == 0 {
			return cty.NullVal(cty.String), nil
		}
		return args[0].AsValueSlice()[0], nil
	},
})
