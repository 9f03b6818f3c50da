"""What can go wrong between reward_store and coupon_api, apart from coupon_api being away."""

from runtime.errors import DependencyUnavailable


class CancellationRejected(DependencyUnavailable):
    """Say that coupon_api will not cancel a coupon until somebody mends data, a token or an address.

    To the member it is a dependency that cannot do its work now: the wish stands, and is fulfilled after the mend.
    """
