//! Rules that are broken on purpose, to test the tests: for each the simulation must find a seed that
//! shows it.
//!
//! Each crate has its own type of defects. Without the feature `mutations` none can be planted, and the
//! checks compile to nothing.

#[cfg(feature = "mutations")]
mod planting {
    use std::any::Any;
    use std::cell::RefCell;

    thread_local! {
        static PLANTED: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    }

    /// Plants a defect in all that this thread steps, in place of any other, or none.
    pub fn plant<D: Copy + 'static>(defect: Option<D>) {
        PLANTED.set(defect.map(|defect| -> Box<dyn Any> { Box::new(defect) }));
    }

    /// Says whether a defect is planted.
    #[must_use]
    pub fn is_planted<D: Copy + PartialEq + 'static>(defect: D) -> bool {
        PLANTED.with_borrow(|planted| {
            let planted = planted.as_ref().and_then(|it| it.downcast_ref::<D>());
            planted == Some(&defect)
        })
    }
}

#[cfg(feature = "mutations")]
pub use planting::{is_planted, plant};

/// Says whether a defect is planted.
#[cfg(not(feature = "mutations"))]
#[must_use]
pub const fn is_planted<D: Copy>(_defect: D) -> bool {
    false
}
