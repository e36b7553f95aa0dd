package pubsubserver

import (
	"context"

	"cloud.google.com/go/iam/apiv1/iampb"
)

// PermitFunc says whether the caller has a permission, such as
// "pubsub.subscriptions.consume", on a resource, a full name.
type PermitFunc func(resource, permission string) bool

// SetPermit installs what answers TestIamPermissions; nil grants everything. It
// does not make other RPCs fail: that is SetFault's business.
func (s *Server) SetPermit(f PermitFunc) {
	if f == nil {
		s.permit.Store(nil)
		return
	}
	s.permit.Store(&f)
}

// policies is the IAMPolicy service of a Server.
type policies struct {
	iampb.UnimplementedIAMPolicyServer
	server *Server
}

// TestIamPermissions answers with no permissions, not with an error, if there is
// no such resource.
func (p *policies) TestIamPermissions(_ context.Context, req *iampb.TestIamPermissionsRequest) (*iampb.TestIamPermissionsResponse, error) {
	resp := &iampb.TestIamPermissionsResponse{}
	if !p.server.exists(req.GetResource()) {
		return resp, nil
	}
	permit := p.server.permit.Load()
	for _, permission := range req.GetPermissions() {
		if permit == nil || (*permit)(req.GetResource(), permission) {
			resp.Permissions = append(resp.Permissions, permission)
		}
	}
	return resp, nil
}

func (s *Server) exists(resource string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.topics[resource] != nil || s.subscriptions[resource] != nil
}
