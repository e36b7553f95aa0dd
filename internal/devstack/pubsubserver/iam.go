package pubsubserver

import (
	"context"
	"sync/atomic"

	"cloud.google.com/go/iam/apiv1/iampb"
)

// PermitFunc says whether the caller has a permission, such as
// "pubsub.subscriptions.consume", on a resource, a full name.
type PermitFunc func(resource, permission string) bool

// SetPermit installs what answers TestIamPermissions; nil grants everything. It
// does not make other RPCs fail: that is SetFault's business.
func (s *Server) SetPermit(f PermitFunc) { s.policies.set(f) }

// policies is the IAMPolicy service of a Server.
type policies struct {
	iampb.UnimplementedIAMPolicyServer
	registry *registry
	permit   atomic.Pointer[PermitFunc]
}

func (p *policies) set(f PermitFunc) {
	if f == nil {
		p.permit.Store(nil)
		return
	}
	p.permit.Store(&f)
}

// TestIamPermissions answers with no permissions, not with an error, if there is
// no such resource.
func (p *policies) TestIamPermissions(_ context.Context, req *iampb.TestIamPermissionsRequest) (*iampb.TestIamPermissionsResponse, error) {
	resp := &iampb.TestIamPermissionsResponse{}
	if !p.registry.exists(req.GetResource()) {
		return resp, nil
	}
	permit := p.permit.Load()
	for _, permission := range req.GetPermissions() {
		if permit == nil || (*permit)(req.GetResource(), permission) {
			resp.Permissions = append(resp.Permissions, permission)
		}
	}
	return resp, nil
}
